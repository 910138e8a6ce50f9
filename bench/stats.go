package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// quantile returns the smallest value of sorted that at least the fraction q,
// above 0 and up to 1, of the values do not exceed. sorted must not be empty.
func quantile[T any](sorted []T, q float64) T {
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}

// median returns the middle one of values in order. values must not be empty.
func median[T cmp.Ordered](values []T) T {
	return quantile(slices.Sorted(slices.Values(values)), 0.50)
}

// micros prints d in whole microseconds.
func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }
