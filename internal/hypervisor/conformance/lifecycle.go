package conformance

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

func createTwice(s *suite) {
	spec := s.spec("twice")
	first := s.create(spec)
	if first.ID != spec.ID || first.Name != spec.Name || first.Owner != owner || first.Power != hypervisor.Stopped {
		s.Errorf("created %+v", first)
	}
	second, err := s.Driver.CreateVM(s.ctx, spec)
	s.ok(err, "create again")
	if second.ID != first.ID || second.Power != hypervisor.Stopped {
		s.Errorf("created again: %+v", second)
	}
	looked, err := s.Other.VM(s.ctx, spec.ID)
	s.ok(err, "look up in another session")
	if looked.ID != spec.ID || looked.Name != spec.Name || looked.Owner != owner || looked.Power != hypervisor.Stopped {
		s.Errorf("looked up %+v", looked)
	}
	// A running one is the same VM, too, and goes on running.
	s.ok(s.Driver.StartVM(s.ctx, spec.ID), "start")
	third, err := s.Driver.CreateVM(s.ctx, spec)
	s.ok(err, "create while it runs")
	if third.Power != hypervisor.Running {
		s.Errorf("created while it runs: %+v", third)
	}
}

func createConcurrent(s *suite) {
	s.ensureImage()
	spec := s.spec("at-once")
	s.cleanUp(spec.ID)
	for _, err := range atOnce(3, func() error { _, err := s.Driver.CreateVM(s.ctx, spec); return err }) {
		s.ok(err, "create")
	}
	vms, err := s.Driver.VMs(s.ctx)
	s.ok(err, "list")
	if len(vms) != 1 || vms[0].ID != spec.ID {
		s.Errorf("the host has %+v", vms)
	}
}

func createRefused(s *suite) {
	s.ensureImage()
	for name, spoil := range map[string]func(*hypervisor.VMSpec){
		"unknown image":     func(v *hypervisor.VMSpec) { v.ImageID = uuid.NewString() },
		"unknown datastore": func(v *hypervisor.VMSpec) { v.Datastore = "nowhere" },
		"unknown network":   func(v *hypervisor.VMSpec) { v.Networks[0].Network = "nowhere" },
	} {
		spec := s.spec("refused")
		spoil(&spec)
		s.cleanUp(spec.ID)
		_, err := s.Driver.CreateVM(s.ctx, spec)
		s.code(err, model.CodeHypervisorError, name)
		if s.listed(spec.ID) {
			s.Errorf("%s: left a VM", name)
		}
	}
	spec := s.spec("bad-id")
	spec.ID = "../../etc"
	if _, err := s.Driver.CreateVM(s.ctx, spec); err == nil {
		s.Error("an id that is a path was taken")
	}
}

func createOfAnother(s *suite) {
	spec := s.spec("mine")
	s.create(spec)
	theirs := spec
	theirs.Owner = another
	_, err := s.Other.CreateVM(s.ctx, theirs)
	s.code(err, model.CodeHypervisorError, "create with an id that is taken")
	vm, err := s.Driver.VM(s.ctx, spec.ID)
	s.ok(err, "look up")
	if vm.Owner != owner {
		s.Errorf("the owner is now %s", vm.Owner)
	}
}

func startStop(s *suite) {
	spec := s.spec("startstop")
	s.create(spec)
	for range 2 {
		s.ok(s.Driver.StopVM(s.ctx, spec.ID, 0), "stop a stopped VM")
		s.ok(s.Driver.StopVM(s.ctx, spec.ID, 1), "stop a stopped VM with grace")
		s.power(spec.ID, hypervisor.Stopped)
		s.ok(s.Driver.StartVM(s.ctx, spec.ID), "start")
		s.ok(s.Driver.StartVM(s.ctx, spec.ID), "start a running VM")
		s.power(spec.ID, hypervisor.Running)
		s.ok(s.Driver.StopVM(s.ctx, spec.ID, 0), "stop")
		s.power(spec.ID, hypervisor.Stopped)
	}
	for _, err := range atOnce(3, func() error { return s.Driver.StartVM(s.ctx, spec.ID) }) {
		s.ok(err, "start at once")
	}
	s.power(spec.ID, hypervisor.Running)
	for _, err := range atOnce(3, func() error { return s.Driver.StopVM(s.ctx, spec.ID, 0) }) {
		s.ok(err, "stop at once")
	}
	s.power(spec.ID, hypervisor.Stopped)
}

func stopGracefully(s *suite) {
	spec := s.spec("graceful")
	s.create(spec)
	s.ok(s.Driver.StartVM(s.ctx, spec.ID), "start")
	s.booted(spec)
	s.ok(s.Driver.StopVM(s.ctx, spec.ID, 60), "stop")
	s.power(spec.ID, hypervisor.Stopped)
}

func deleteAny(s *suite) {
	for _, running := range []bool{false, true} {
		spec := s.spec("gone")
		s.create(spec)
		if running {
			s.ok(s.Driver.StartVM(s.ctx, spec.ID), "start")
		}
		for _, err := range atOnce(2, func() error { return s.Driver.DeleteVM(s.ctx, spec.ID) }) {
			s.ok(err, "delete at once")
		}
		s.ok(s.Driver.DeleteVM(s.ctx, spec.ID), "delete again")
		_, err := s.Driver.VM(s.ctx, spec.ID)
		s.notFound(err, "look up")
		if s.listed(spec.ID) {
			s.Error("it is still listed")
		}
		// Its id is free again.
		s.create(spec)
		s.ok(s.Driver.DeleteVM(s.ctx, spec.ID), "delete the second")
	}
}

func deleteWhileCreating(s *suite) {
	s.ensureImage()
	spec := s.spec("race")
	s.cleanUp(spec.ID)
	created := make(chan error, 1)
	go func() { _, err := s.Driver.CreateVM(s.ctx, spec); created <- err }()
	s.ok(s.Driver.DeleteVM(s.ctx, spec.ID), "delete")
	if err := <-created; err != nil && s.ctx.Err() != nil {
		s.Fatalf("create: %v", err)
	}
	// Whichever came last, the host is in a state from which both work.
	vm, err := s.Driver.CreateVM(s.ctx, spec)
	s.ok(err, "create")
	if vm.Power != hypervisor.Stopped {
		s.Errorf("created %+v", vm)
	}
	s.ok(s.Driver.StartVM(s.ctx, spec.ID), "start")
	s.ok(s.Driver.DeleteVM(s.ctx, spec.ID), "delete")
	_, err = s.Driver.VM(s.ctx, spec.ID)
	s.notFound(err, "look up")
}

func node(s *suite) {
	spec := s.spec("node")
	spec.Node = true
	s.create(spec)
	s.ok(s.Driver.StartVM(s.ctx, spec.ID), "start")
	s.booted(spec)
}

// booted waits until the console shows the VM's user data.
func (s *suite) booted(spec hypervisor.VMSpec) {
	s.Helper()
	s.eventually("the VM's user data on its console", func() bool {
		text, err := s.Driver.ConsoleTail(s.ctx, spec.ID, 4096)
		s.ok(err, "console")
		return strings.Contains(text, "# of "+spec.Name)
	})
}

func inside(s *suite) {
	spec := s.spec("inside")
	spec.Networks = []model.VMNetwork{s.Network(2)}
	s.create(spec)
	text, err := s.Driver.ConsoleTail(s.ctx, spec.ID, 4096)
	s.ok(err, "console of a VM that never ran")
	if text != "" {
		s.Errorf("console of a VM that never ran: %q", text)
	}
	s.ok(s.Driver.StartVM(s.ctx, spec.ID), "start")
	s.booted(spec)
	s.eventually("the address given", func() bool {
		vm, err := s.Driver.VM(s.ctx, spec.ID)
		s.ok(err, "look up")
		return slices.Equal(vm.Addresses, []string{spec.Networks[0].IPAddress})
	})
	// It is not used up by looking, and is there when the VM is not running any more.
	s.booted(spec)
	for _, most := range []int{0, 1, 10} {
		text, err := s.Driver.ConsoleTail(s.ctx, spec.ID, most)
		s.ok(err, "console")
		if len(text) != most {
			s.Errorf("asked for the last %d bytes, got %q", most, text)
		}
	}
	s.ok(s.Driver.StopVM(s.ctx, spec.ID, 0), "stop")
	s.booted(spec)
}
