package control

import "testing"

// Who finds no room waits for those that hold some and may not get it; the last
// of those that found none is told that there is none.
func TestClaims(t *testing.T) {
	c := claims{ended: make(chan struct{})}
	isClosed := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	c.begin() // has a place
	c.begin()
	waits := c.withdraw()
	if waits == nil || isClosed(waits) {
		t.Fatal("a shortage is told while somebody holds a place he may not get")
	}
	c.end()
	if !isClosed(waits) {
		t.Error("who waits is not told of the end")
	}

	c.begin()
	c.begin()
	if waits = c.withdraw(); waits == nil {
		t.Fatal("a shortage is told while somebody is about to take or leave a place")
	}
	if last := c.withdraw(); last != nil {
		t.Error("the last one waits for nobody")
	}
	if !isClosed(waits) {
		t.Error("who waits for one that found nothing either is not told")
	}
}
