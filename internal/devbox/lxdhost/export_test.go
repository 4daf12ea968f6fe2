package lxdhost

// What tests of the package look at from outside; they cannot be inside it, since
// lxdtest, which they use, imports it.
var (
	AdmitBridge = admitBridge
	RemoveRules = removeRules
	MountsUnder = mountsUnder
	OthersHere  = othersHere
)

// MachineDir is the register's directory.
const MachineDir = machineDir

// Validate is Config's check before anything is done.
func (c Config) Validate() error { return c.validate() }
