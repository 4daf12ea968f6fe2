package quota

import (
	"github.com/pleiad/pleiad/internal/model"
)

// Keys that a flavor of kind vm must have.
const (
	KeyCPU    = "vm.cpu"
	KeyMemory = "vm.memory"

	capacitySuffix = ".capacity"
	flavorInfix    = ".flavor."
)

// ValidateFlavor checks the kind and the cost of a flavor: InvalidEntity for lines
// that are wrong in themselves, InvalidFlavorSpecification for those that do not suit the kind.
func ValidateFlavor(kind string, cost []model.QuotaLineItem) error {
	s, err := Parse("cost", cost)
	if err != nil {
		return err
	}
	switch kind {
	case model.FlavorVM:
		for _, need := range []struct{ key, unit string }{{KeyCPU, "in COUNT"}, {KeyMemory, "in GB, MB, KB or B"}} {
			if s[need.key].IsZero() {
				return model.Errorf(model.CodeInvalidFlavorSpec, "cost of a flavor of kind %s must have %s, %s and more than 0",
					kind, need.key, need.unit)
			}
		}
	case model.FlavorEphemeralDisk, model.FlavorPersistentDisk:
		if _, ok := s[kind+capacitySuffix]; ok {
			return model.Errorf(model.CodeInvalidFlavorSpec,
				"cost of a flavor of kind %s must not have %s: a disk's size is given when it is made", kind, kind+capacitySuffix)
		}
	default:
		return model.Errorf(model.CodeInvalidEntity, "kind must be %s, %s or %s (was %q)",
			model.FlavorVM, model.FlavorEphemeralDisk, model.FlavorPersistentDisk, clip(kind))
	}
	if _, ok := s[KeyPercent]; ok {
		return model.Errorf(model.CodeInvalidFlavorSpec, "cost must not have %s, which is for the limits of projects", KeyPercent)
	}
	return nil
}

// VMCost returns what a VM of a flavor costs: the flavor's lines, and 1 COUNT each of
// "vm" and "vm.flavor.NAME" unless the flavor, as many of Photon's do, has these itself.
func VMCost(flavorName string, cost []model.QuotaLineItem) (Set, error) {
	return costOf(model.FlavorVM, flavorName, cost)
}

// DiskCost returns what a disk costs: the flavor's lines, 1 COUNT each of KIND and
// "KIND.flavor.NAME" unless the flavor has these itself, and its size as "KIND.capacity".
func DiskCost(kind, flavorName string, cost []model.QuotaLineItem, capacityGB int) (Set, error) {
	s, err := costOf(kind, flavorName, cost)
	if err != nil {
		return nil, err
	}
	size, refusal := Of(float64(capacityGB), model.UnitGB)
	if refusal != "" {
		return nil, model.Errorf(model.CodeInvalidEntity, "capacityGb %s", refusal)
	}
	s[kind+capacitySuffix] = size
	return s, nil
}

func costOf(kind, flavorName string, cost []model.QuotaLineItem) (Set, error) {
	s, err := Parse("cost", cost)
	if err != nil {
		return nil, err
	}
	for _, k := range []string{kind, kind + flavorInfix + flavorName} {
		if _, ok := s[k]; !ok {
			s[k] = Count(1)
		}
	}
	return s, nil
}

// Capacity returns what a cost takes of a host: vm.cpu, vm.memory and the capacity of disks.
func Capacity(cost Set) model.Capacity {
	return model.Capacity{
		MilliCPU: cost[KeyCPU].n,
		Memory:   cost[KeyMemory].n,
		Disk:     cost[model.FlavorEphemeralDisk+capacitySuffix].n + cost[model.FlavorPersistentDisk+capacitySuffix].n,
	}
}
