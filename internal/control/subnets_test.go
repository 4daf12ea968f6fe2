package control

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

func TestSubnetRefusals(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	ctx := context.Background()
	w.done(s.CreateSubnet(ctx, model.SubnetCreateSpec{Name: "first", PortGroups: []string{"vmnet", "lab"},
		CIDR: "100.65.0.0/24", RangeStart: "100.65.0.50", RangeEnd: "100.65.0.99"}))
	before, tasks := w.dump(), w.tasks()
	for name, c := range map[string]struct {
		change func(*model.SubnetCreateSpec)
		says   string
	}{
		"no port group":              {func(s *model.SubnetCreateSpec) { s.PortGroups = nil }, "portGroups must name at least one"},
		"empty port group":           {func(s *model.SubnetCreateSpec) { s.PortGroups = []string{"vmnet", ""} }, "portGroups[1] must have 1 to 255"},
		"long port group":            {func(s *model.SubnetCreateSpec) { s.PortGroups[0] = strings.Repeat("x", 256) }, "portGroups[0] must have 1 to 255"},
		"DNS server by name":         {func(s *model.SubnetCreateSpec) { s.DNS = []string{"100.66.0.2", "dns"} }, `dnsServerAddresses[1] is not an IP address (was "dns")`},
		"gateway without network":    {func(s *model.SubnetCreateSpec) { s.CIDR, s.Gateway = "", "100.66.0.1" }, "privateIpCidr is needed"},
		"start without network":      {func(s *model.SubnetCreateSpec) { s.CIDR, s.RangeStart = "", "100.66.0.1" }, "privateIpCidr is needed"},
		"end without network":        {func(s *model.SubnetCreateSpec) { s.CIDR, s.RangeEnd = "", "100.66.0.1" }, "privateIpCidr is needed"},
		"no network":                 {func(s *model.SubnetCreateSpec) { s.CIDR = "vlan 7" }, `privateIpCidr must be an IPv4 network of /30 or larger, like 100.64.10.0/24 (was "vlan 7")`},
		"IPv6":                       {func(s *model.SubnetCreateSpec) { s.CIDR = "fd00::/64" }, "must be an IPv4 network"},
		"network of two":             {func(s *model.SubnetCreateSpec) { s.CIDR = "100.66.0.0/31" }, "/30 or larger"},
		"bits behind the prefix":     {func(s *model.SubnetCreateSpec) { s.CIDR = "100.66.0.1/24" }, `was "100.66.0.1/24"`},
		"gateway elsewhere":          {func(s *model.SubnetCreateSpec) { s.Gateway = "100.67.0.1" }, "gateway must be an address in 100.66.0.0/24"},
		"gateway by name":            {func(s *model.SubnetCreateSpec) { s.Gateway = "router" }, `was "router"`},
		"gateway at network":         {func(s *model.SubnetCreateSpec) { s.Gateway = "100.66.0.0" }, "gateway must not be the network's own"},
		"start elsewhere":            {func(s *model.SubnetCreateSpec) { s.RangeStart = "100.65.255.255" }, "lowIpStatic must be an address in"},
		"start at network":           {func(s *model.SubnetCreateSpec) { s.RangeStart = "100.66.0.0" }, "lowIpStatic must not be the network's own"},
		"end elsewhere":              {func(s *model.SubnetCreateSpec) { s.RangeEnd = "100.66.1.0" }, "highIpStatic must be an address in"},
		"end at broadcast":           {func(s *model.SubnetCreateSpec) { s.RangeEnd = "100.66.0.255" }, "highIpStatic must not be the network's own or its broadcast address (was 100.66.0.255"},
		"end before start":           {func(s *model.SubnetCreateSpec) { s.RangeStart, s.RangeEnd = "100.66.0.9", "100.66.0.8" }, "must not be before lowIpStatic (100.66.0.9 to 100.66.0.8)"},
		"same range":                 {func(s *model.SubnetCreateSpec) { s.CIDR = "100.65.0.0/24" }, "(100.65.0.1 to 100.65.0.254) has addresses that subnet first (100.65.0.50 to 100.65.0.99) gives out on port group vmnet"},
		"the other's first address":  {func(s *model.SubnetCreateSpec) { s.CIDR, s.RangeEnd = "100.65.0.0/24", "100.65.0.50" }, "subnet first"},
		"the other's last address":   {func(s *model.SubnetCreateSpec) { s.CIDR, s.RangeStart = "100.65.0.0/24", "100.65.0.99" }, "subnet first"},
		"in a network of other size": {func(s *model.SubnetCreateSpec) { s.CIDR, s.PortGroups = "100.65.0.64/26", []string{"new", "lab"} }, "on port group lab"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := model.SubnetCreateSpec{Name: "second", PortGroups: []string{"vmnet"}, CIDR: "100.66.0.0/24"}
			c.change(&spec)
			_, err := s.CreateSubnet(ctx, spec)
			if e := refused(t, err, model.CodeInvalidNetworkConfig); !strings.Contains(e.Message, c.says) {
				t.Errorf("%q does not say %q", e.Message, c.says)
			}
			same(t, before, w.dump())
			if n := w.tasks(); n != tasks {
				t.Errorf("%d tasks more than before", n-tasks)
			}
		})
	}

	// What only looks alike goes: addresses around the others', and the same ones on a network apart.
	for _, spec := range []model.SubnetCreateSpec{
		{Name: "below", PortGroups: []string{"vmnet"}, CIDR: "100.65.0.0/24", RangeEnd: "100.65.0.49"},
		{Name: "above", PortGroups: []string{"vmnet"}, CIDR: "100.65.0.0/24", RangeStart: "100.65.0.100"},
		{Name: "apart", PortGroups: []string{"island"}, CIDR: "100.65.0.0/24", Gateway: "100.65.0.1"},
		{Name: "small", PortGroups: []string{"vmnet"}, CIDR: "100.66.0.0/30", RangeStart: "100.66.0.1", RangeEnd: "100.66.0.2"},
		{Name: "dhcp", PortGroups: []string{"vmnet"}, DNS: []string{"fd00::1"}},
	} {
		w.done(s.CreateSubnet(ctx, spec))
	}
}

// Of many who ask at once for the same addresses, one gets them.
func TestSubnetsAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	// Those below do not also contend for being the default.
	w.done(s.CreateSubnet(context.Background(), model.SubnetCreateSpec{Name: "first", PortGroups: []string{"vmnet"}}))
	var made atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			_, err := s.CreateSubnet(context.Background(), model.SubnetCreateSpec{
				Name: "net-" + string(rune('a'+i)), PortGroups: []string{"vmnet"}, CIDR: "100.66.0.0/24"})
			if err == nil {
				made.Add(1)
			} else if e := model.AsError(err); e.Code != model.CodeInvalidNetworkConfig {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("%d subnets give out the same addresses", n)
	}
}
