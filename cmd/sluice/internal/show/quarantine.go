package show

import (
	"fmt"
	"io"
	"strings"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// QuarantineLine writes an entry in quarantine as a line of columns: sequence,
// time of receipt, source, reason, length of the body, path and content type.
func QuarantineLine(out io.Writer, q *sluicev1.QuarantineEntry, zone *time.Location) error {
	return writeLine(out, "%*d  %s  %-12s  %-14s  %8d  %s  %s", sequenceWidth, q.GetSequence(),
		q.GetReceiveTime().AsTime().In(zone).Format(timeLayout), Visible(q.GetSource()), q.GetReason(),
		q.GetRawBytes(), Visible(q.GetPath()), Visible(q.GetContentType()))
}

// RejectionLine writes a callback that was not accepted as a line of columns:
// time, source, reason, length of the body and its shape.
func RejectionLine(out io.Writer, r *sluicev1.Rejection, zone *time.Location) error {
	return writeLine(out, "%s  %-12s  %-14s  %8d  %s", r.GetTime().AsTime().In(zone).Format(timeLayout),
		Visible(r.GetSource()), r.GetReason(), r.GetBodyBytes(), Visible(r.GetShape()))
}

func writeLine(out io.Writer, format string, args ...any) error {
	_, err := io.WriteString(out, strings.TrimRight(fmt.Sprintf(format, args...), " ")+"\n")
	return err
}
