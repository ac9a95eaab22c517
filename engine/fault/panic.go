package fault

import "fmt"

// CodePanic is the code of an attempt whose handler panicked.
const CodePanic = "panic"

// Panic is a panic of a handler, as an error.
type Panic struct {
	// Value is what panic was called with.
	Value any
	// Stack is the stack of the goroutine that panicked.
	Stack string
}

// Error says with what the handler panicked.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Code is [CodePanic].
func (p *Panic) Code() string { return CodePanic }

// Unwrap returns the value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}
