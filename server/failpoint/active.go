//go:build failpoints

// Package failpoint makes a process fail at a named place, for the fault tests.
//
// The environment variable FAILPOINTS says where and how:
//
//	FAILPOINTS="after-read=kill@100;mid-response=sleep:2s"
//
// An action is kill (SIGKILL to the own process), exit (code 3), panic, error
// (Hit returns one) or sleep:DURATION. With @N it happens at the Nth hit only,
// otherwise at each. "failpoint NAME ACTION" goes to standard error first, so
// that a test can tell that its fault has happened.
package failpoint

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

type point struct {
	action string
	sleep  time.Duration
	at     uint64 // 0 is each hit
	hits   atomic.Uint64
}

var points = load(os.Getenv("FAILPOINTS"))

// load exits with code 2 when spec cannot be understood: a fault test without
// its fault would prove nothing.
func load(spec string) map[string]*point {
	all, err := parse(spec)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAILPOINTS: %v\n", err)
		os.Exit(2) //nolint:forbidigo // there is no caller to return an error to
	}
	return all
}

func parse(spec string) (map[string]*point, error) {
	all := map[string]*point{}
	for _, one := range strings.FieldsFunc(spec, func(r rune) bool { return r == ';' }) {
		name, action, ok := strings.Cut(strings.TrimSpace(one), "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not name=action", one)
		}
		p := &point{}
		var at string
		var err error
		if p.action, at, ok = strings.Cut(action, "@"); ok {
			if p.at, err = strconv.ParseUint(at, 10, 64); err != nil || p.at == 0 {
				return nil, fmt.Errorf("%s: @%s is not a number from 1", name, at)
			}
		}
		switch d, isSleep := strings.CutPrefix(p.action, "sleep:"); {
		case isSleep:
			if p.sleep, err = time.ParseDuration(d); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		case p.action != "kill" && p.action != "exit" && p.action != "panic" && p.action != "error":
			return nil, fmt.Errorf("%s: unknown action %q", name, p.action)
		}
		all[name] = p
	}
	return all, nil
}

// Hit does what FAILPOINTS says for name. It returns an error only where the
// action is error.
func Hit(name string) error {
	p := points[name]
	if p == nil {
		return nil
	}
	if n := p.hits.Add(1); p.at != 0 && n != p.at {
		return nil
	}
	_, _ = fmt.Fprintf(os.Stderr, "failpoint %s %s\n", name, p.action) // unbuffered
	switch p.action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	case "exit":
		os.Exit(3) //nolint:forbidigo // that is the fault
	case "panic":
		panic("failpoint " + name) //nolint:forbidigo // that is the fault
	case "error":
		return fmt.Errorf("failpoint %s", name)
	default:
		time.Sleep(p.sleep) //nolint:forbidigo // that is the fault
	}
	return nil
}

// Response returns a writer that hits name when half of the answer's body has
// been sent.
func Response(name string, w http.ResponseWriter) http.ResponseWriter {
	if points[name] == nil {
		return w
	}
	return &response{ResponseWriter: w, name: name}
}

type response struct {
	http.ResponseWriter
	name string
}

// Write implements http.ResponseWriter.
func (r *response) Write(b []byte) (int, error) {
	n, err := r.ResponseWriter.Write(b[:len(b)/2])
	if err != nil {
		return n, err
	}
	_ = http.NewResponseController(r.ResponseWriter).Flush() // or the half would wait for the rest
	_ = Hit(r.name)
	m, err := r.ResponseWriter.Write(b[len(b)/2:])
	return n + m, err
}

// Unwrap is for http.ResponseController.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }
