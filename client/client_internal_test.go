package client

import "testing"

func TestIsLocal(t *testing.T) {
	for target, want := range map[string]bool{
		"127.0.0.1:9090":           true,
		"127.9.9.9":                true,
		"localhost:9090":           true,
		"[::1]:9090":               true,
		":9090":                    true,
		"dns:///localhost:9090":    true,
		"unix:///run/sluice.sock":  true,
		"unix:sluice.sock":         true,
		"unix-abstract:sluice":     true,
		"10.0.0.1:9090":            false,
		"[::]:9090":                false,
		"0.0.0.0:9090":             false,
		"sluice.internal:9090":     false,
		"dns:///sluice.internal":   false,
		"localhost.evil.test:9090": false,
		"dns://127.0.0.1/sluice:1": false,
		"xds:///127.0.0.1.test":    false,
		"passthrough:///memory":    false,
	} {
		if got := isLocal(target); got != want {
			t.Errorf("isLocal(%q) = %v, want %v", target, got, want)
		}
	}
}
