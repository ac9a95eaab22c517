package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// maxOutput bounds the JSON of one value, in bytes: a short expression can stand
// for an endless one.
const maxOutput = 16 << 20

var errTooLong = errors.New("this is longer than 16 MiB as JSON: make it smaller")

// appendJSON appends a value of CEL to b as JSON. Integers stay integers; times
// become RFC 3339 in UTC, durations such as "1.5s", bytes base64; the keys of
// maps must be strings, and are sorted.
func appendJSON(b []byte, value ref.Val) ([]byte, error) {
	if len(b) > maxOutput {
		return nil, errTooLong
	}
	switch native := value.Value().(type) {
	case map[string]any, []any: // a piece of the event's data, with its numbers as they are written
		return append(b, encode(native)...), nil
	}
	switch v := value.(type) {
	case types.Null:
		return append(b, "null"...), nil
	case types.Bool:
		return strconv.AppendBool(b, bool(v)), nil
	case types.Int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case types.Uint:
		return strconv.AppendUint(b, uint64(v), 10), nil
	case types.Double:
		return appendFloat(b, float64(v))
	case types.String:
		return append(b, encode(string(v))...), nil
	case types.Bytes:
		return append(b, encode([]byte(v))...), nil
	case types.Timestamp:
		return append(b, encode(v.Time.UTC().Format(time.RFC3339Nano))...), nil
	case types.Duration:
		return append(b, encode(strconv.FormatFloat(v.Duration.Seconds(), 'f', -1, 64)+"s")...), nil
	case traits.Mapper:
		return appendMap(b, v)
	case traits.Lister:
		return appendList(b, v)
	}
	return nil, fmt.Errorf("a value of type %s cannot be written as JSON", value.Type().TypeName())
}

func appendMap(b []byte, m traits.Mapper) ([]byte, error) {
	var keys []string
	for it := m.Iterator(); it.HasNext() == types.True; {
		key, ok := it.Next().(types.String)
		if !ok {
			return nil, errors.New("the keys of a map must be strings to be written as JSON")
		}
		keys = append(keys, string(key))
	}
	slices.Sort(keys)
	b = append(b, '{')
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, encode(key)...), ':')
		var err error
		if b, err = appendJSON(b, m.Get(types.String(key))); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendList(b []byte, l traits.Lister) ([]byte, error) {
	b = append(b, '[')
	for it, first := l.Iterator(), true; it.HasNext() == types.True; first = false {
		if !first {
			b = append(b, ',')
		}
		var err error
		if b, err = appendJSON(b, it.Next()); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendFloat(b []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%v is no number that JSON has", f)
	}
	return append(b, encode(f)...), nil
}

// encode returns a value that always has JSON.
func encode(value any) []byte {
	data, err := tryEncode(value)
	if err != nil {
		panic("spec: encode JSON: " + err.Error())
	}
	return data
}

// tryEncode returns a value as JSON, without the escapes that only HTML needs.
func tryEncode(value any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}
