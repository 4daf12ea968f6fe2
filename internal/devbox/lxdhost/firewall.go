package lxdhost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// LXD's own rules accept and masquerade the bridge's traffic, but in nftables an accept
// in one table does not help against a drop in another. Where the machine has
// a firewall that drops (Docker's FORWARD policy, ufw, firewalld), the bridge is
// admitted at the head of those chains, by rules that carry our comment.

const lxdTable = "lxd" // inet lxd, shared by all LXD daemons of a machine

// nftChain and nftRule are what we read of nft's JSON.
type nftChain struct {
	Family, Table, Name, Type, Hook, Policy string
}

type nftRule struct {
	Family, Table, Chain, Comment string
	Handle                        int
	Expr                          []map[string]json.RawMessage
}

func ruleComment(bridge string) string { return "pleiad-lxdhost:" + bridge }

// admitBridge lets a bridge of ours through chains that would drop its traffic.
func admitBridge(ctx context.Context, c Config) error {
	if !c.CreateBridge {
		return nil // whoever made it sees to it
	}
	bridge := c.Bridge
	chains, rules, err := listRules(ctx)
	if err != nil {
		return err
	}
	var script strings.Builder
	for _, chain := range chains {
		if !chain.drops(rules) || chain.admits(rules, bridge) {
			continue
		}
		matches := []string{"iifname"}
		if chain.Hook == "forward" {
			matches = append(matches, "oifname")
		}
		for _, m := range matches {
			fmt.Fprintf(&script, "insert rule %s %s %s %s %q accept comment %q\n", chain.Family, chain.Table, chain.Name, m, bridge, ruleComment(bridge))
		}
	}
	return runNFT(ctx, script.String())
}

// drops reports whether the chain filters what hosts of the bridge send, and would refuse some of it.
func (c nftChain) drops(rules []nftRule) bool {
	if c.Type != "filter" || (c.Hook != "input" && c.Hook != "forward") || (c.Family != "ip" && c.Family != "inet") {
		return false
	}
	if c.Policy == "drop" {
		return true
	}
	for _, r := range rules {
		if r.Family != c.Family || r.Table != c.Table || r.Chain != c.Name {
			continue
		}
		for _, e := range r.Expr {
			if _, ok := e["drop"]; ok {
				return true
			}
			if _, ok := e["reject"]; ok {
				return true
			}
		}
	}
	return false
}

func (c nftChain) admits(rules []nftRule, bridge string) bool {
	for _, r := range rules {
		if r.Family == c.Family && r.Table == c.Table && r.Chain == c.Name && r.Comment == ruleComment(bridge) {
			return true
		}
	}
	return false
}

// removeRules takes away the rules of admitBridge and the chains LXD made for the
// bridge, and LXD's table once it is empty.
func removeRules(ctx context.Context, bridge string) error {
	chains, rules, err := listRules(ctx)
	if err != nil {
		return err
	}
	var script strings.Builder
	for _, r := range rules {
		if r.Comment == ruleComment(bridge) {
			fmt.Fprintf(&script, "delete rule %s %s %s handle %d\n", r.Family, r.Table, r.Chain, r.Handle)
		}
	}
	left, tables := 0, map[string]bool{}
	for _, c := range chains {
		if c.Table != lxdTable {
			continue
		}
		tables[c.Family] = true
		// LXD names its chains by what they do and the network: fwd.lxdbr0.
		if _, network, _ := strings.Cut(c.Name, "."); network == bridge {
			fmt.Fprintf(&script, "flush chain %s %s %s\ndelete chain %s %s %s\n", c.Family, c.Table, c.Name, c.Family, c.Table, c.Name)
		} else {
			left++
		}
	}
	if err := runNFT(ctx, script.String()); err != nil || left > 0 {
		return err
	}
	// Deleting a network through LXD leaves its empty table behind.
	return removeEmptyTable(ctx)
}

func removeEmptyTable(ctx context.Context) error {
	out, err := outputNFT(ctx, "-j", "list", "tables")
	if err != nil {
		return err
	}
	var listing struct {
		NFTables []struct {
			Table *struct{ Family, Name string } `json:"table"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(out, &listing); err != nil {
		return fmt.Errorf("nft list tables: %w", err)
	}
	var script strings.Builder
	for _, o := range listing.NFTables {
		if o.Table != nil && o.Table.Name == lxdTable {
			fmt.Fprintf(&script, "delete table %s %s\n", o.Table.Family, o.Table.Name)
		}
	}
	return runNFT(ctx, script.String())
}

func listRules(ctx context.Context) ([]nftChain, []nftRule, error) {
	out, err := outputNFT(ctx, "-j", "-a", "list", "ruleset")
	if err != nil {
		return nil, nil, err
	}
	var listing struct {
		NFTables []struct {
			Chain *nftChain `json:"chain"`
			Rule  *nftRule  `json:"rule"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(out, &listing); err != nil {
		return nil, nil, fmt.Errorf("nft list ruleset: %w", err)
	}
	var chains []nftChain
	var rules []nftRule
	for _, o := range listing.NFTables {
		switch {
		case o.Chain != nil:
			chains = append(chains, *o.Chain)
		case o.Rule != nil:
			rules = append(rules, *o.Rule)
		}
	}
	return chains, rules, nil
}

func outputNFT(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "nft", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("nft %s: %w: %s", strings.Join(args, " "), err, strconv.Quote(stderr.String()))
	}
	return out, nil
}

// runNFT applies a script as one transaction; an empty one does nothing.
func runNFT(ctx context.Context, script string) error {
	if script == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strconv.Quote(string(out)))
	}
	return nil
}
