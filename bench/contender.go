package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A contender is a server that is measured: Sluice as the tree has it, another
// Sluice, or a server of this program's that does less.
type contender struct {
	name    string // in tables
	program string // its path
	serve   string // command of this program; "" is a Sluice
}

// ours is the name of the contender that is built from the tree.
const ours = "Sluice"

// A setup is the flags that every measurement has.
type setup struct {
	dir       string // where data goes; "" is where the system keeps temporary files
	against   others
	benchstat string // file that lines for benchstat are appended to; "" is none
}

func (s *setup) register(flags *flag.FlagSet) {
	flags.StringVar(&s.dir, "dir", "", "where to put data; must be on the disk to be measured (default: the system's directory for temporary files)")
	flags.Var(&s.against, "against", "other sluice binaries to measure in turns with this one, as [NAME=]PATH, separated by commas")
	flags.StringVar(&s.benchstat, "benchstat", "", "append lines for benchstat to this `file`")
}

// others is a flag: binaries of Sluice, each with a name.
type others []contender

func (o *others) String() string {
	var all []string
	for _, c := range *o {
		all = append(all, c.name+"="+c.program)
	}
	return strings.Join(all, ",")
}

// Set implements flag.Value.
func (o *others) Set(s string) error {
	*o = nil
	taken := []string{ours, "limit", "floor", "nearest"}
	for field := range strings.SplitSeq(s, ",") {
		name, path, named := strings.Cut(field, "=")
		if !named {
			name, path = filepath.Base(field), field
		}
		if name == "" || strings.ContainsAny(name, "/| ") || slices.Contains(taken, name) {
			return fmt.Errorf("%q cannot be a name: give another, as NAME=PATH", name)
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		taken = append(taken, name)
		*o = append(*o, contender{name: name, program: path})
	}
	return nil
}

// A rig is what every measurement needs.
type rig struct {
	setup
	dir    string // of this run, within setup.dir; removed by close
	sluice []contender
}

// newRig makes a directory, builds Sluice from the module around this one, and
// says on out what the measurements are taken on.
func newRig(ctx context.Context, s setup, out io.Writer) (*rig, error) {
	dir, err := os.MkdirTemp(s.dir, "sluice-bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{setup: s, dir: dir}
	binary := filepath.Join(dir, "sluice")
	build := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", binary, "./cmd/sluice") //nolint:gosec // our own path
	if text, err := build.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("build sluice: %w\n%s", err, text), r.close())
	}
	r.sluice = append([]contender{{name: ours, program: binary}}, s.against...)
	description, err := machine(dir)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	fmt.Fprintln(out, description)
	return r, nil
}

func (r *rig) close() error { return os.RemoveAll(r.dir) }

// own returns the contender that is a command of this program.
func own(command string) (contender, error) {
	self, err := os.Executable()
	return contender{name: command, program: self, serve: command}, err
}
