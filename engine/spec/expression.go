package spec

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// What an evaluation may use. Both are far above what an event of one megabyte
// needs, and far below what anybody notices.
const (
	maxSteps    = 200_000   // as CEL counts cost
	maxElements = 4_000_000 // of the largest value: numbers, keys, tens of bytes of text
)

// maxExpression bounds the text of an expression, in characters.
const maxExpression = 8192

// expression is a compiled field of a definition. It is safe for concurrent use.
type expression struct {
	field, text string
	about       string // what the expression is about
	program     cel.Program
}

// A language is what the expressions of some fields may use.
type language struct {
	// about is what they are about, event or tick, of which all variables are.
	about string
	// names are those of the variables, without what they are about.
	names []string
	env   *cel.Env
}

// variable is a variable of a language. Its name has a dot, so that the compiler
// knows all of them and evaluation takes only what is used.
type variable struct {
	name string
	kind *cel.Type
}

// newLanguage returns CEL with some variables. The extensions for strings are left
// out on purpose: their replace, join and format build gigabytes of two short fields
// before any limit sees the result.
func newLanguage(about string, variables ...variable) *language {
	l := &language{about: about}
	options := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
	}
	for _, v := range variables {
		l.names = append(l.names, strings.TrimPrefix(v.name, about+"."))
		options = append(options, cel.Variable(v.name, v.kind))
	}
	var err error
	if l.env, err = cel.NewEnv(options...); err != nil {
		panic("spec: the variables of the " + about + " are no CEL: " + err.Error())
	}
	return l
}

// want is what the value of an expression has to be. No types means anything.
type want struct {
	types []*cel.Type
	words string
}

var (
	wantBool = want{[]*cel.Type{cel.BoolType}, "true or false"}
	wantText = want{[]*cel.Type{cel.StringType, cel.IntType, cel.UintType, cel.DoubleType}, "a string or a number"}
)

// compile compiles one field. Of what type a value of the event's data is shows
// only when the event is there, so the compiler accepts that for any.
func (l *language) compile(field, text string, want want) (*expression, []fault) {
	if strings.TrimSpace(text) == "" {
		return nil, []fault{{field: field, message: field + " is an empty expression: write one, or leave the field out"}}
	}
	ast, issues := l.env.Compile(text)
	if issues.Err() != nil {
		var faults []fault
		for _, e := range issues.Errors() {
			at := e.Location
			faults = append(faults, fault{field, field + ": " + l.plain(e.Message), max(at.Line(), 1), at.Column()})
		}
		return nil, faults
	}
	fail := func(message string) (*expression, []fault) {
		return nil, []fault{{field: field, message: field + message}}
	}
	if pattern, ok := builtPattern(ast); ok {
		at := ast.NativeRep().SourceInfo().GetStartLocation(pattern)
		return nil, []fault{{field, field + ": the pattern of matches must be written out in quotes", at.Line(), at.Column()}}
	}
	got := ast.OutputType()
	fits := func(t *cel.Type) bool { return t.IsExactType(got) }
	if want.types != nil && !got.IsExactType(cel.DynType) && !slices.ContainsFunc(want.types, fits) {
		return fail(fmt.Sprintf(" is of type %s and must be %s", cel.FormatCELType(got), want.words))
	}
	program, err := l.env.Program(ast,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostLimit(maxSteps),
		cel.CostTracking(deepCost{}),
		cel.MemoryLimit(maxElements),
		cel.MemoryTracking(types.MemoryTrackerSizeCalculator(sizes), types.MemoryTrackerSampleInterval(10_000)),
	)
	if err != nil {
		return fail(": " + l.plain(err.Error()))
	}
	return &expression{field, text, l.about, program}, nil
}

// evaluate returns the value of the expression, or one line that says which
// expression has none, and why.
func (x *expression) evaluate(vars cel.Activation) (ref.Val, error) {
	value, _, err := x.program.Eval(vars)
	if err != nil {
		return nil, x.errorf("%s", plain(err.Error(), x.about))
	}
	return value, nil
}

// refuse returns the error of a value that is not what it has to be.
func (x *expression) refuse(value ref.Val, want want) error {
	what := value.Type().TypeName()
	if t, ok := value.Type().(*types.Type); ok {
		what, _, _ = strings.Cut(cel.FormatCELType(t), "(")
	}
	return x.errorf("for this %s it is of type %s and must be %s", x.about, what, want.words)
}

func (x *expression) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %s: %s", x.field, oneLine(x.text), oneLine(fmt.Sprintf(format, args...)))
}

// builtPattern returns where an expression matches against a pattern that is not
// a literal. A pattern from an event could be as long as the text, and matching
// takes the product of both.
func builtPattern(ast *cel.Ast) (id int64, ok bool) {
	root := celast.NavigateAST(ast.NativeRep())
	for _, match := range celast.MatchDescendants(root, celast.FunctionMatcher("matches")) {
		args := match.AsCall().Args()
		if pattern := args[len(args)-1]; pattern.Kind() != celast.LiteralKind {
			return pattern.ID(), true
		}
	}
	return 0, false
}

// sizes measures values for both limits, however deep they are.
var sizes = types.NewSizeCalculator(
	types.SizeCalculatorMaxDepth(20_000), // JSON ends at 10,000
	types.SizeCalculatorMaxTraversal(maxElements),
)

// deepCost counts what CEL counts too low: operators that walk or copy the whole
// of a value cost its size. Everything else costs what CEL says; joining lists
// does, since it copies nothing and every map and filter is made of it.
type deepCost struct{}

// CallCost implements cost.ActualCostEstimator.
func (deepCost) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	switch {
	case function == "_==_", function == "_!=_", function == "@in":
	case function == "_+_" && args[0].Type() != types.ListType:
	default:
		return nil
	}
	steps := uint64(1)
	for _, arg := range args {
		steps += uint64(sizes.AggregateSize(arg)) / 10
	}
	return &steps
}

// plain makes a message of the compiler one that reads well in one line.
func (l *language) plain(message string) string {
	if strings.HasPrefix(message, "undeclared reference to '"+l.about+"'") {
		return l.about + " has only " + strings.Join(l.names, ", ")
	}
	return plain(message, l.about)
}

// plain makes a message of CEL one that reads well in one line.
func plain(message, about string) string {
	message = strings.TrimPrefix(message, "Syntax error: ")
	message, _, _ = strings.Cut(message, " expecting ")
	if number, ok := strings.CutPrefix(message, "unsupported conversion to ref.Val: (json.Number)"); ok {
		return oneLine(number) + " is too large a number"
	}
	switch {
	case strings.HasPrefix(message, "mismatched input '<EOF>'"):
		return "the expression ends too early"
	case strings.HasPrefix(message, "no such overload"):
		return "no operator or function takes values of these types"
	case strings.HasPrefix(message, "invalid matches argument"):
		return "the pattern of matches is no regular expression"
	case strings.Contains(message, "cost limit exceeded"), strings.Contains(message, "memory limit exceeded"):
		return "this takes too long or too much memory: make the expression simpler, or the " + about + " smaller"
	}
	return oneLine(message)
}
