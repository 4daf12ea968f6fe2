// Package quota counts what tenants may use, what they use, and what things cost.
//
// Amounts are exact integers: bytes for the units B, KB, MB and GB (powers of
// 1024), thousandths for COUNT. On the wire and in the store they are float64
// values with a unit (model.QuotaLineItem); every amount that Parse accepts
// comes back unchanged from Lines and Parse again, so a ledger never drifts,
// however often it is read and written. That is why an amount is at most
// MaxBytes or MaxCount: beyond, a float64 no longer tells neighbours apart. A
// value finer than a byte or a thousandth is rounded to the nearest; one that
// is not zero never becomes zero, it is refused.
//
// An amount keeps the unit it was given in. Usage is told in the unit of its
// limit, as Photon Controller does.
//
// Only keys present in the limits are enforced; usage is counted for all keys.
//
// The package is pure: no I/O, no clock, no goroutine. Functions never change
// their arguments, and a Set may be shared by goroutines that do not change it.
package quota
