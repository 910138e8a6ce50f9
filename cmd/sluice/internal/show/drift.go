package show

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Drift writes findings as a table. Times are shown in zone.
func Drift(out io.Writer, findings []*sluicev1.DriftFinding, zone *time.Location) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tNAME\tWHERE\tEXAMPLE\tEVENTS\tFIRST\tLAST\tLAST EVENT")
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d\n",
			enumName(f.GetKind()), Visible(f.GetName()), Visible(cmp.Or(f.GetWhere(), "-")), Visible(cmp.Or(f.GetExample(), "-")),
			f.GetCount(), f.GetFirstTime().AsTime().In(zone).Format(timeLayout),
			f.GetLastTime().AsTime().In(zone).Format(timeLayout), f.GetLastSequence())
	}
	return table.Flush()
}

// Retyped writes an event that today's decoder makes another of, and below it
// what changes.
func Retyped(out io.Writer, e *sluicev1.RetypedEvent) error {
	fate := "would change"
	if n := e.GetRevisionSequence(); n != 0 {
		fate = fmt.Sprintf("revised as %d", n)
	}
	by := "no decoder"
	if v := e.GetDecoderVersion(); v != 0 {
		by = fmt.Sprintf("decoder %d", v)
	}
	text := fmt.Sprintf("%d: typed by %s, %s\n", e.GetSequence(), by, fate)
	for _, c := range e.GetChanges() {
		text += fmt.Sprintf("  %s: %s -> %s\n", Visible(c.GetPath()), orUnset(c.GetBefore()), orUnset(c.GetAfter()))
	}
	if n := e.GetChangesLeftOff(); n > 0 {
		text += fmt.Sprintf("  and %d more\n", n)
	}
	_, err := io.WriteString(out, text)
	return err
}

func orUnset(value string) string {
	if value == "" {
		return "(unset)"
	}
	return Visible(value)
}
