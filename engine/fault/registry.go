package fault

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
)

// registry knows the errors that keep more than their text on their way.
type registry struct {
	mu     sync.RWMutex
	types  map[reflect.Type]string
	values map[error]string
	names  map[string]any // a reflect.Type or an error
}

// registered is what this process knows. Types have names once for all, like
// those of package gob, whatever engine is in use.
var registered = &registry{types: map[reflect.Type]string{}, values: map[error]string{}, names: map[string]any{}}

// Register makes errors of type T travel under a name, as their JSON. It panics
// if the name is none, or has another meaning already.
func Register[T error](as string) {
	t := reflect.TypeFor[T]()
	if t.Kind() == reflect.Interface {
		panic(fmt.Sprintf("fault: register error %q: %v is an interface: register the types that implement it", as, t))
	}
	registered.add(as, t, func() { registered.types[t] = as })
}

// RegisterValue makes an error that callers compare by errors.Is travel under a
// name. It panics if the name is none, or has another meaning already, or if the
// error cannot be compared.
func RegisterValue(as string, err error) {
	if err == nil || !reflect.ValueOf(err).Comparable() {
		panic(fmt.Sprintf("fault: register error %q: %T cannot be compared: register its type", as, err))
	}
	registered.add(as, err, func() { registered.values[err] = as })
}

// add notes what a name means.
func (r *registry) add(as string, meaning any, note func()) {
	if err := name.Check("error", strings.ReplaceAll(as, ".", "-")); err != nil {
		panic("fault: register error: " + err.Error())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if before, ok := r.names[as]; ok && before != meaning {
		panic(fmt.Sprintf("fault: register error %q: the name is taken by %v: choose another", as, before))
	}
	r.names[as] = meaning
	note()
}

// encode returns the name of err and its JSON, if it is registered.
func (r *registry) encode(err error) (as string, data json.RawMessage) {
	r.mu.RLock()
	as = r.types[reflect.TypeOf(err)]
	value := ""
	if reflect.ValueOf(err).Comparable() {
		value = r.values[err]
	}
	r.mu.RUnlock()
	switch {
	case value != "":
		return value, nil
	case as != "":
		return as, marshal(err)
	}
	return "", nil
}

// decode returns the registered error that a cause is, or nil.
func (r *registry) decode(c machine.Cause) error {
	if c.Type == "" {
		return nil
	}
	r.mu.RLock()
	meaning := r.names[c.Type]
	r.mu.RUnlock()
	switch m := meaning.(type) {
	case reflect.Type:
		return unmarshal(m, c.Data)
	case error:
		return m
	}
	return nil
}

// unmarshal returns the error of a type that data is the JSON of, or nil.
func unmarshal(t reflect.Type, data json.RawMessage) (err error) {
	defer func() {
		if recover() != nil {
			err = nil // it stays text
		}
	}()
	if len(data) == 0 {
		return nil
	}
	into := t
	if t.Kind() == reflect.Pointer {
		into = t.Elem()
	}
	v := reflect.New(into)
	if failed := json.Unmarshal(data, v.Interface()); failed != nil {
		return nil
	}
	if t.Kind() != reflect.Pointer {
		v = v.Elem()
	}
	err, _ = v.Interface().(error)
	return err
}
