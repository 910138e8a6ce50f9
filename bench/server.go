package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A server is a contender in a child process, on a data directory.
type server struct {
	callbackAddr string
	grpcAddr     string // Sluice only
	httpAddr     string // Sluice only
	dir          string
	command      []string // program and arguments, to start it again
	cmd          *exec.Cmd
	output       *bytes.Buffer // what the process printed; read it after the process ended
}

// startOn starts c with its data in dir and waits until it answers. A Sluice
// gets its defaults, but for addresses, the data directory and profiles to be
// asked for.
func (c contender) startOn(ctx context.Context, dir string) (*server, error) {
	addrs, err := freeAddrs(ctx, 3)
	if err != nil {
		return nil, err
	}
	s := &server{callbackAddr: addrs[0], dir: dir}
	if c.serve != "" {
		s.command = []string{c.program, c.serve, "-dir", dir, "-addr", addrs[0]}
		return s, s.start(ctx)
	}
	s.grpcAddr, s.httpAddr = addrs[1], addrs[2]
	s.command = []string{
		c.program, "serve", "--data-dir", dir, "--pprof",
		"--callback-addr", addrs[0], "--grpc-addr", addrs[1], "--http-addr", addrs[2],
	}
	return s, s.start(ctx)
}

// startAll starts each Sluice on an empty data directory of its own. What was
// started is returned with an error, too.
func (r *rig) startAll(ctx context.Context) (all []*server, err error) {
	for _, c := range r.sluice {
		s, err := c.startOn(ctx, filepath.Join(r.dir, "data-"+c.name))
		if err != nil {
			return all, fmt.Errorf("%s: %w", c.name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func stopAll(all []*server) error {
	var errs []error
	for _, s := range all {
		errs = append(errs, s.stop())
	}
	return errors.Join(errs...)
}

// startPatience bounds a start, on the largest log too.
const startPatience = time.Minute

// start starts the process and returns when a first callback was answered.
func (s *server) start(ctx context.Context) error {
	s.output = new(bytes.Buffer)
	s.cmd = exec.CommandContext(ctx, s.command[0], s.command[1:]...) //nolint:gosec // Sluice or this program
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(startPatience)
	for {
		err := postOne(ctx, s.callbackAddr)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) || s.ended() {
			_ = s.kill()
			return fmt.Errorf("wait for %s: %w\n%s", s.command[0], err, s.output)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func postOne(ctx context.Context, addr string) error {
	p, err := dial(ctx, addr, defaultChats)
	if err != nil {
		return err
	}
	defer p.close()
	return p.post()
}

// stop ends the process in good order and removes its data. What that leaves
// to write back is written before it returns, so that the next measurement
// does not pay for it.
func (s *server) stop() error {
	err := errors.Join(s.end(), os.RemoveAll(s.dir))
	syscall.Sync()
	return err
}

// end ends the process in good order and leaves its data for another start.
func (s *server) end() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(s.cmd.Path), err, s.output)
	}
	return nil
}

// kill ends the process as a crash would.
func (s *server) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // says that it was killed
	return nil
}

// freeAddrs returns n loopback addresses that nothing listened on a moment ago.
func freeAddrs(ctx context.Context, n int) (addrs []string, err error) {
	var config net.ListenConfig
	for range n {
		l, listenErr := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if listenErr != nil {
			return nil, listenErr
		}
		defer func() { err = errors.Join(err, l.Close()) }() // only now, so that all are different
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
