package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// machine describes, in one line, what the figures were taken on. dir is where
// the data is.
func machine(dir string) (string, error) {
	sync, err := syncCost(dir)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %d cores; %s/%s %s; %s; %s, fsync after an append of 1 KiB: p50 %s, p99 %s",
		cpuModel(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, kernel(), runtime.Version(), fileSystem(dir),
		micros(quantile(sync, 0.50)), micros(quantile(sync, 0.99))), nil
}

// syncCost measures appends of 1 KiB to a file in dir, each followed by fsync.
// The times are sorted.
func syncCost(dir string) (costs []time.Duration, err error) {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	costs = make([]time.Duration, 500)
	for i := range costs {
		begin := time.Now()
		if _, err := f.Write(make([]byte, 1<<10)); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		costs[i] = time.Since(begin)
	}
	slices.Sort(costs)
	return costs, nil
}

// cpuModel returns the processor's name where Linux tells it.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(info)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// kernel returns the kernel's release where Linux tells it.
func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return strings.TrimSpace(string(release))
}

// fileSystem returns the type of the file system that dir is on, where Linux
// tells it.
func fileSystem(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "unknown file system"
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown file system"
	}
	kind, longest := "unknown file system", 0
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line) // device, mount point, type, …
		if len(fields) < 3 || len(fields[1]) < longest {
			continue
		}
		if rel, err := filepath.Rel(fields[1], dir); err == nil && filepath.IsLocal(rel) {
			kind, longest = fields[2], len(fields[1])
		}
	}
	return kind
}
