package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// text returns the bytes that an argument stands for: itself, the content of
// the file in @FILE, or standard input for "-".
func (e *env) text(flag, arg string) ([]byte, error) {
	switch {
	case arg == "-":
		data, err := io.ReadAll(e.stdin)
		if err != nil {
			return nil, fmt.Errorf("%s: read standard input: %w", flag, err)
		}
		return data, nil
	case strings.HasPrefix(arg, "@"):
		data, err := os.ReadFile(arg[1:])
		if err != nil {
			return nil, usage(fmt.Errorf("%s: %w", flag, err))
		}
		return data, nil
	}
	return []byte(arg), nil
}

// jsonText is like text, for JSON.
func (e *env) jsonText(flag, arg string) (json.RawMessage, error) {
	data, err := e.text(flag, arg)
	if err != nil || len(data) == 0 && arg == "" {
		return nil, err
	}
	var v json.RawMessage
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, usage(fmt.Errorf(`%s is no JSON: %w: write a string as '"text"', or give @FILE or -`, flag, err))
	}
	return v, nil
}
