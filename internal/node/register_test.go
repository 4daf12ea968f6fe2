package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/node/wire"
	"github.com/pleiad/pleiad/internal/plan"
)

func anyReport(plan.Report) bool { return true }

func TestRegistrationSurvivesLostAnswers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ctl.lose = 3
		w.start()
		w.ctl.await(anyReport)
		w.ctl.do(func() {
			if w.ctl.lose != 0 || len(w.ctl.enrolled) != 1 {
				t.Errorf("%d answers left to lose, %d nodes enrolled", w.ctl.lose, len(w.ctl.enrolled))
			}
		})
		w.mustLog("registration failed, trying again")
	})
}

// A crash between the registration and the saving of its answer is a lost
// answer to another process: the key must be the same.
func TestRegistrationAfterACrashUsesTheSameKey(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ctl.lose = 1 << 30
		stop := w.start()
		<-time.After(time.Minute)
		stop()
		w.ctl.do(func() { w.ctl.lose = 0 })
		w.start()
		w.ctl.await(anyReport)
	})
}

func TestATokenOfAnotherKeyIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.start()
		w.ctl.await(anyReport)
		stop()
		// Somebody has copied the token, but not the key.
		w.root = t.TempDir()
		w.start()
		<-time.After(time.Minute)
		w.mustLog(string(model.CodeInvalidRegistered))
	})
}

func TestAnExpiredTokenIsToldAndTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ctl.allow(testToken, testNode, -time.Second)
		w.start()
		<-time.After(2 * time.Minute)
		w.mustLog("ExpiredAuthToken", "the token has expired", "make the node anew")
		if n := strings.Count(w.log.String(), "registration failed"); n > 4 {
			t.Errorf("%d lines of the same failure in two minutes", n)
		}
		w.ctl.do(func() {
			if w.ctl.requests < 20 || w.ctl.requests > 80 {
				t.Errorf("%d requests in two minutes", w.ctl.requests)
			}
		})
		w.ctl.allow(testToken, testNode, time.Hour)
		w.ctl.await(anyReport)
	})
}

// What is not the controller that the node was made by must not see the token.
func TestImpostorsNeverSeeTheToken(t *testing.T) {
	for _, name := range []string{"own CA", "own CA, showing the real one", "own CA, pinned by PEM", "fingerprint of a leaf"} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				impostor := newController(t)
				impostor.allow(testToken, testNode, time.Hour)
				cert := impostor.ca.serverCertificate(t, impostor.ca)
				switch name {
				case "own CA, showing the real one":
					cert = impostor.ca.serverCertificate(t, impostor.ca, w.ctl.ca)
				case "own CA, pinned by PEM":
					w.boot.CAFingerprint, w.boot.CA = "", w.ctl.ca.pem()
				case "fingerprint of a leaf":
					// An operator who pinned a server's certificate instead of the CA's.
					leaf := must(parseCertificates(certPEM(cert.Certificate[0])))(t)[0]
					w.boot.CAFingerprint = bootstrap.Fingerprint(leaf)
				}
				s := impostor.serve(w.net.listen("controller-1"), cert)
				w.t.Cleanup(s.Close)
				w.start()
				<-time.After(time.Minute)
				impostor.do(func() {
					if impostor.requests != 0 {
						t.Errorf("the impostor got %d requests", impostor.requests)
					}
				})
				w.mustLog("registration failed")
				if _, err := os.Stat(filepath.Join(w.root, stateDir, fileCert)); err == nil {
					t.Error("there is a certificate")
				}
			})
		})
	}
}

// The controller is the right one, but what it answers is not what was asked for.
func TestWrongCredentialsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := newAuthority(t), newAuthority(t)
		st := must(openState(t.TempDir()))(t)
		defer st.close()
		boot := bootstrap.Bootstrap{NodeID: testNode, ControllerURLs: []string{"https://c"}, CA: ca.pem()}
		id := must(openIdentity(st, boot, must(NewClient(boot, nil))(t), nil))(t)
		strange := must(parseKey(must(newKey())(t)))(t)
		good := certPEM(ca.issue(t, testNode, &id.key.PublicKey, time.Hour).Raw)
		for name, c := range map[string]struct{ cert, ca, err string }{
			"not PEM":       {"x", ca.pem(), "no PEM certificate"},
			"no CA":         {good, "", "CA: no PEM certificate"},
			"another CA":    {good, other.pem(), "is not among them"},
			"another key":   {certPEM(ca.issue(t, testNode, &strange.PublicKey, time.Hour).Raw), ca.pem(), "another key"},
			"another node":  {certPEM(ca.issue(t, "node-2", &id.key.PublicKey, time.Hour).Raw), ca.pem(), `for "node-2"`},
			"other issuer":  {certPEM(other.issue(t, testNode, &id.key.PublicKey, time.Hour).Raw), ca.pem(), "unknown authority"},
			"ended already": {certPEM(ca.issue(t, testNode, &id.key.PublicKey, -time.Second).Raw), ca.pem(), "expired"},
		} {
			err := id.take(wire.Credentials{Certificate: c.cert, CA: c.ca})
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if raw, err := st.read(fileCert); raw != nil || err != nil || id.leaf != nil {
			t.Error("something was taken")
		}
		if err := id.take(wire.Credentials{Certificate: good, CA: other.pem() + ca.pem()}); err != nil {
			t.Errorf("a bundle with the next CA: %v", err)
		}
	})
}

func TestCertificatesAreRenewed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ctl.certLife = 3 * time.Hour
		w.ctl.answer.HeartbeatSeconds = 600
		w.start()
		w.ctl.await(anyReport)
		<-time.After(119 * time.Minute)
		w.ctl.do(func() {
			if len(w.ctl.serials) != 1 {
				t.Errorf("%d certificates after 1:59", len(w.ctl.serials))
			}
			w.ctl.down = true
		})
		<-time.After(20 * time.Minute)
		w.ctl.do(func() { w.ctl.down = false })
		<-time.After(30 * time.Hour)
		w.ctl.do(func() {
			if n := len(w.ctl.serials); n < 12 || n > 20 {
				t.Errorf("%d certificates in 32 hours", n)
			}
			// As rare as the controller asked for, and still accepted.
			if n := len(w.ctl.beats); n < 185 || n > 220 {
				t.Errorf("%d heartbeats in 32 hours", n)
			}
		})
		w.mustLog("renewal of the node's certificate failed", "renewal of the node's certificate works again")
	})
}

func TestAnotherControllerTakesOver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.boot.ControllerURLs = []string{"https://nowhere:9443", "https://controller-1:9443", "https://controller-2:9443"}
		second := w.ctl.serve(w.net.listen("controller-2"), w.ctl.ca.serverCertificate(t, w.ctl.ca))
		w.t.Cleanup(second.Close)
		w.start()
		w.ctl.await(anyReport)
		// The first one is gone for good; its connections too.
		must(0, w.net.listeners["controller-1"].Close())(t)
		w.net.listen("controller-1").Close()
		p := w.plan(command("a", "true"))
		w.ctl.give(p)
		w.ctl.await(allDone(p))
	})
}

func TestTheAgentGoesOnWhereItWas(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.plan(command("a", "first"), command("b", "second"))
		w.ctl.give(p)
		w.programs.set("second", block)
		stop := w.start()
		w.ctl.await(inState("b", plan.StepRunning))
		stop()
		w.mustLog("step cut off")

		// Without any controller: the saved plan is enough.
		w.ctl.do(func() { w.ctl.down = true; w.ctl.reports = nil })
		w.programs.set("second", nil)
		w.start()
		<-time.After(time.Minute)
		if first, second := w.programs.count("first"), w.programs.count("second"); first != 1 || second != 2 {
			t.Errorf("the first step ran %d times, the second %d", first, second)
		}
		w.mustLog("reporting failed, trying again")
		w.ctl.do(func() { w.ctl.down = false })
		rep := w.ctl.await(allDone(p))
		if got := rep.Result("b").Attempts; got != 2 {
			t.Errorf("%d attempts", got)
		}
		w.ctl.do(func() {
			if len(w.ctl.enrolled) != 1 || len(w.ctl.reports) != 1 {
				t.Errorf("%d reports of what is one state", len(w.ctl.reports))
			}
		})
	})
}

func TestACopiedDiskIsANewNode(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.plan(command("a", "true"))
		w.ctl.give(p)
		stop := w.start()
		w.ctl.await(allDone(p))
		stop()
		w.boot.NodeID, w.boot.Token = "node-2", "another.one.token"
		w.ctl.allow(w.boot.Token, "node-2", time.Hour)
		w.ctl.do(func() { w.ctl.reports, w.ctl.planBody = nil, nil })
		w.start()
		rep := w.ctl.await(anyReport)
		if rep.NodeID != "node-2" || rep.PlanHash != "" || len(rep.Results) != 0 {
			t.Errorf("the copy reports %+v", rep)
		}
		w.mustLog("this disk was another node's")
	})
}

func TestTheBootstrapDocumentMayComeLate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(bootstrap.Path, []byte("{"))
		late := w.boot
		stop := func() func() {
			defer func() { w.boot = late }()
			w.boot = bootstrap.Bootstrap{}
			return w.start() // writes an empty document
		}()
		<-time.After(time.Minute)
		w.mustLog("search for the bootstrap document failed", "nodeId")
		stop()
		w.start()
		w.ctl.await(anyReport)
	})
}

func TestOnlyOneAgent(t *testing.T) {
	dir := t.TempDir()
	st := must(openState(dir))(t)
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second agent: %v", err)
	}
	if err := st.close(); err != nil {
		t.Fatal(err)
	}
	again := must(openState(dir))(t)
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
}

func TestBackoffGrowsToItsLimit(t *testing.T) {
	b := newBackoff()
	for i, whole := range []int{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		d, limit := b.next(), time.Duration(whole)*time.Millisecond
		if d < limit/2 || d > limit {
			t.Errorf("try %d: %s is not within half and all of %s", i, d, limit)
		}
	}
	b.reset()
	if d := b.next(); d > 100*time.Millisecond {
		t.Errorf("after a reset: %s", d)
	}
	if got := fmt.Sprint(doubled(time.Second, 30*time.Second, 1), doubled(time.Second, 30*time.Second, 5), doubled(time.Second, 30*time.Second, 1<<30)); got != "1s 16s 30s" {
		t.Errorf("doubled: %s", got)
	}
}
