package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A format is the form in which a command shows events.
type format struct {
	json bool
}

// addFormatFlags gives cmd the flags of a format, and returns what they set.
func addFormatFlags(cmd *cobra.Command) *format {
	f := &format{}
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object a line, for programs")
	return f
}

// printer returns what shows an event on out.
func (f *format) printer(out io.Writer) func(*sluicev1.Event) error {
	if f.json {
		return func(e *sluicev1.Event) error { return show.JSON(out, e) }
	}
	return show.NewLines(out).Print
}
