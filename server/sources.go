package server

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// setSources parses sources: from a file a list of maps, from a variable or a
// flag the compact form "name=acme,path=/hook,token=env:ACME;name=…". A token
// that holds a comma or a semicolon cannot be written in the compact form.
//
// No error repeats a value: it may be a token.
func setSources(to *[]Source, value any) error {
	var items []any
	switch value := value.(type) {
	case []any:
		items = value
	case string:
		for part := range strings.SplitSeq(value, ";") {
			fields, err := compactFields(part)
			if err != nil {
				return fmt.Errorf("source %d: %w", len(items)+1, err)
			}
			items = append(items, fields)
		}
	default:
		return errors.New("want a list of sources, each with name, path and tokens")
	}
	var errs []error
	sources := make([]Source, len(items))
	for i, item := range items {
		errs = append(errs, prefixed(fmt.Sprintf("source %d: ", i+1), sources[i].set(item)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	*to = sources
	return nil
}

// sourceFields are the keys of a source in a file.
var sourceFields = []string{"name", "path", "tokens", "signature_token"}

// compactFields parses one source in the compact form to what YAML would have
// made of it.
func compactFields(text string) (map[string]any, error) {
	fields := make(map[string]any)
	var tokens []any
	for i, part := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok:
			return nil, fmt.Errorf("part %d is not key=value", i+1)
		case key == "token":
			tokens = append(tokens, value)
		case key == "tokens": // in a file only, where it is a list
			return nil, errors.New("unknown key tokens, did you mean token?")
		case fields[key] != nil:
			return nil, fmt.Errorf("%s is given twice", key)
		default:
			fields[key] = value
		}
	}
	if tokens != nil {
		fields["tokens"] = tokens
	}
	return fields, nil
}

// set takes a source from a map of sourceFields.
func (s *Source) set(item any) error {
	fields, ok := item.(map[string]any)
	if !ok {
		return errors.New("want a map with name, path and tokens")
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		value := fields[key]
		var ok bool
		switch key {
		case "name":
			s.Name, ok = value.(string)
		case "path":
			s.Path, ok = value.(string)
		case "signature_token":
			s.SignatureToken, ok = value.(string)
		case "tokens":
			s.Tokens, ok = texts(value)
		default:
			errs = append(errs, unknown("key", key, sourceFields))
			continue
		}
		if !ok {
			errs = append(errs, fmt.Errorf("%s is not text: put it in quotes", key))
		}
	}
	return errors.Join(errs...)
}

// texts returns a list of strings as that; one string is a list of one.
func texts(value any) ([]string, bool) {
	if text, ok := value.(string); ok {
		return []string{text}, true
	}
	items, ok := value.([]any)
	list := make([]string, 0, len(items))
	for _, item := range items {
		text, isText := item.(string)
		ok = ok && isText
		list = append(list, text)
	}
	return list, ok
}

// showSources returns what setSources takes, with the secrets masked.
func showSources(sources []Source) []any {
	items := make([]any, 0, len(sources))
	for _, s := range sources {
		fields := map[string]any{"name": s.Name}
		switch s.Path {
		case "":
		case "/":
			fields["path"] = s.Path
		default:
			fields["path"] = "/" + masked // whoever knows it may post
		}
		if len(s.Tokens) > 0 {
			tokens := make([]any, 0, len(s.Tokens))
			for _, token := range s.Tokens {
				tokens = append(tokens, maskSecret(token))
			}
			fields["tokens"] = tokens
		}
		if s.SignatureToken != "" {
			fields["signature_token"] = maskSecret(s.SignatureToken)
		}
		items = append(items, fields)
	}
	return items
}

// maskSecret hides a secret but not where it comes from.
func maskSecret(text string) string {
	for _, reference := range []string{"env:", "file:"} {
		if strings.HasPrefix(text, reference) {
			return text
		}
	}
	if strings.HasPrefix(text, "sha256:") {
		return "sha256:" + masked
	}
	return masked
}
