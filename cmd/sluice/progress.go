package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A progressBar shows on a terminal how far a verification is. The nil bar shows
// nothing.
type progressBar struct {
	out   io.Writer
	began time.Time
}

// newProgressBar returns a bar on out, nil when that is no terminal.
func newProgressBar(out io.Writer) *progressBar {
	if file, ok := out.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	return &progressBar{out: out, began: time.Now()}
}

// eraseLine moves the cursor of a terminal to the start of an empty line.
const eraseLine = "\r\x1b[K"

// show shows p, which may be nil.
func (b *progressBar) show(p *sluicev1.VerifyProgress) {
	if b == nil || p == nil {
		return
	}
	const width = 30
	done := min(p.GetSequence()*width/max(p.GetLastSequence(), 1), width)
	bar := fmt.Sprintf("%-*.*s", width, int(done), "##############################")
	rate := float64(p.GetBytes()) / 1e6 / max(time.Since(b.began).Seconds(), 0.001)
	fmt.Fprintf(b.out, eraseLine+"%s [%s] %d records, %.0f MB/s", p.GetLog(), bar, p.GetRecords(), rate)
}

// clear removes the bar.
func (b *progressBar) clear() {
	if b != nil {
		fmt.Fprint(b.out, eraseLine)
	}
}
