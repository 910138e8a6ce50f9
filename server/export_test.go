package server

import (
	"net"
	"time"
)

// SetTimeouts shortens what a client of an HTTP listener may take.
func (c *Config) SetTimeouts(header, body time.Duration) {
	c.limits = defaultLimits()
	c.limits.header, c.limits.body = header, body
}

// SetCallbackConns bounds the connections of the callback listener.
func (c *Config) SetCallbackConns(n int) {
	c.limits = defaultLimits()
	c.limits.callbackConns = n
}

// SetLeaseTTL sets how long a consumer group has no leader when the one that it
// had has gone without a word.
func (c *Config) SetLeaseTTL(d time.Duration) { c.leaseTTL = d }

// LookAtConfig does what the server does every few seconds: it looks whether the
// configuration has changed.
func (s *Server) LookAtConfig() { s.reloader.look() }

// Hang does what the server does on a hangup.
func (s *Server) Hang() { s.reloader.reload() }

// CallbackListener returns the listener, for a test to break.
func (s *Server) CallbackListener() net.Listener { return s.callbackListener }
