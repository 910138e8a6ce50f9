package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
)

// maxFirstMissing is how many missing ids are named.
const maxFirstMissing = 20

// A ledger is ids that the log must hold. The nil ledger has none.
type ledger struct {
	count int                 // different ids
	open  map[string]struct{} // those that were not found yet
}

// readLedger reads a ledger from a file.
func readLedger(name string) (_ *ledger, err error) {
	file, err := os.Open(name) //nolint:gosec // the user names the file
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	l := &ledger{open: make(map[string]struct{})}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		id, err := ledgerID(bytes.TrimSpace(lines.Bytes()))
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", name, n, err)
		}
		if id != "" {
			l.open[id] = struct{}{}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l.count = len(l.open)
	return l, nil
}

// ledgerID returns the id on a line; "" when it has none.
func ledgerID(line []byte) (string, error) {
	if len(line) == 0 || line[0] == '#' {
		return "", nil
	}
	if line[0] != '{' {
		return string(line), nil
	}
	var entry struct {
		MessageID string `json:"message_id"`
		Key       string `json:"key"`
	}
	if err := json.Unmarshal(line, &entry); err != nil {
		return "", fmt.Errorf("not a JSON object: %w", err)
	}
	if entry.Key == "" && entry.MessageID == "" {
		return "", errors.New(`neither "message_id" nor "key" is set`)
	}
	if entry.Key != "" { // it names one event, a message id may name several
		return entry.Key, nil
	}
	return entry.MessageID, nil
}

// found takes note of an event that the log holds.
func (l *ledger) found(key, messageID string) {
	if l == nil {
		return
	}
	delete(l.open, key)
	delete(l.open, messageID)
}

// missing returns how many ids were not found.
func (l *ledger) missing() int {
	if l == nil {
		return 0
	}
	return len(l.open)
}

// firstMissing returns some of them, in order.
func (l *ledger) firstMissing() []string {
	ids := slices.Sorted(maps.Keys(l.open))
	return ids[:min(len(ids), maxFirstMissing)]
}
