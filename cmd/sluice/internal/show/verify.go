package show

import (
	"fmt"
	"io"
	"text/tabwriter"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Verified writes the outcome of a verification as a table, and below it what is
// wrong.
func Verified(out io.Writer, report *sluicev1.VerifyReport) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LOG\tFIRST\tLAST\tRECORDS\tBYTES\tREMOVED\tDAMAGED\tUNDECODABLE\tPROBLEMS")
	for _, l := range report.GetLogs() {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
			l.GetName(), l.GetFirstSequence(), l.GetLastSequence(), l.GetRecords(), l.GetBytes(), l.GetRemoved(),
			l.GetDamagedRecords(), l.GetUndecodable(), len(l.GetProblems()))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, l := range report.GetLogs() {
		for _, d := range l.GetDamaged() {
			fmt.Fprintf(out, "%s: %s damaged: %s\n", l.GetName(), sequences(d), Visible(d.GetCause()))
		}
		for _, p := range l.GetProblems() {
			fmt.Fprintf(out, "%s: %s\n", l.GetName(), Visible(p))
		}
	}
	for _, p := range report.GetProblems() {
		fmt.Fprintln(out, Visible(p))
	}
	if report.GetOk() {
		fmt.Fprintln(out, "all records can be read")
	}
	return nil
}

// sequences names the records of a range, as the subject of a sentence.
func sequences(r *sluicev1.DamagedRange) string {
	if r.GetFirstSequence() == r.GetLastSequence() {
		return fmt.Sprintf("record %d is", r.GetFirstSequence())
	}
	return fmt.Sprintf("records %d to %d are", r.GetFirstSequence(), r.GetLastSequence())
}
