package api

func (s *server) infrastructureRoutes() {
	tag := "flavors"
	list(s, op("listFlavors", "GET /v1/flavors", Authenticated, tag, "List flavors"), s.flavors, "name", "kind")
	create(s, op("createFlavor", "POST /v1/flavors", Admin, tag, "Create a flavor"), s.Operations.CreateFlavor)
	get(s, op("getFlavor", "GET /v1/flavors/{id}", Authenticated, tag, "Show a flavor"), s.flavors)
	act(s, op("deleteFlavor", "DELETE /v1/flavors/{id}", Admin, tag, "Delete a flavor"), s.flavors, s.Operations.DeleteFlavor)
	listIn(s, op("listFlavorTasks", "GET /v1/flavors/{id}/tasks", Authenticated, tag, "List a flavor's tasks"), s.flavors, "entityId", s.tasks, "state")

	tag = "images"
	list(s, op("listImages", "GET /v1/images", Authenticated, tag, "List images"), s.images, "name")
	s.uploadRoute(op("createImage", "POST /v1/images", Admin, tag, "Upload an image"))
	get(s, op("getImage", "GET /v1/images/{id}", Authenticated, tag, "Show an image"), s.images)
	act(s, op("deleteImage", "DELETE /v1/images/{id}", Admin, tag, "Delete an image"), s.images, s.Operations.DeleteImage)
	listIn(s, op("listImageTasks", "GET /v1/images/{id}/tasks", Authenticated, tag, "List an image's tasks"), s.images, "entityId", s.tasks, "state")

	tag = "availability zones"
	list(s, op("listZones", "GET /v1/availabilityzones", Authenticated, tag, "List availability zones"), s.zones, "name")
	create(s, op("createZone", "POST /v1/availabilityzones", Admin, tag, "Create an availability zone"), s.Operations.CreateZone)
	get(s, op("getZone", "GET /v1/availabilityzones/{id}", Authenticated, tag, "Show an availability zone"), s.zones)
	act(s, op("deleteZone", "DELETE /v1/availabilityzones/{id}", Admin, tag, "Delete an availability zone"), s.zones, s.Operations.DeleteZone)
	listIn(s, op("listZoneTasks", "GET /v1/availabilityzones/{id}/tasks", Authenticated, tag, "List an availability zone's tasks"), s.zones, "entityId", s.tasks, "state")

	tag = "hosts" // they are created and listed below their deployment
	get(s, op("getHost", "GET /v1/hosts/{id}", Admin, tag, "Show a host"), s.hosts)
	act(s, op("deleteHost", "DELETE /v1/hosts/{id}", Admin, tag, "Remove a host"), s.hosts, s.Operations.DeleteHost)
	listIn(s, op("listHostVMs", "GET /v1/hosts/{id}/vms", Admin, tag, "List a host's VMs"), s.hosts, "hostId", s.vms)
	listIn(s, op("listHostTasks", "GET /v1/hosts/{id}/tasks", Admin, tag, "List a host's tasks"), s.hosts, "entityId", s.tasks, "state")

	tag = "datastores"
	list(s, op("listDatastores", "GET /v1/datastores", Admin, tag, "List datastores"), s.datastores, "tag")
	get(s, op("getDatastore", "GET /v1/datastores/{id}", Admin, tag, "Show a datastore"), s.datastores)

	tag = "orphans"
	list(s, op("listOrphans", "GET /v1/orphans", Admin, tag, "List VMs that are left on hosts"), s.orphans, "hostId")
	get(s, op("getOrphan", "GET /v1/orphans/{id}", Admin, tag, "Show an orphan"), s.orphans)

	tag = "subnets"
	list(s, op("listSubnets", "GET /v1/subnets", Authenticated, tag, "List subnets"), s.subnets, "name")
	create(s, op("createSubnet", "POST /v1/subnets", Admin, tag, "Create a subnet"), s.Operations.CreateSubnet)
	get(s, op("getSubnet", "GET /v1/subnets/{id}", Authenticated, tag, "Show a subnet"), s.subnets)
	act(s, op("deleteSubnet", "DELETE /v1/subnets/{id}", Admin, tag, "Delete a subnet"), s.subnets, s.Operations.DeleteSubnet)
	act(s, op("setDefaultSubnet", "POST /v1/subnets/{id}/set_default", Admin, tag, "Make a subnet the default one"), s.subnets, s.Operations.SetDefaultSubnet)
}
