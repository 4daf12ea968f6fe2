package api

func (s *server) tenantRoutes() {
	const tag = "tenants"
	list(s, op("listTenants", "GET /v1/tenants", Authenticated, tag, "List tenants"), s.tenants, "name")
	create(s, op("createTenant", "POST /v1/tenants", Admin, tag, "Create a tenant"), s.Operations.CreateTenant)
	get(s, op("getTenant", "GET /v1/tenants/{id}", Authenticated, tag, "Show a tenant"), s.tenants)
	act(s, op("deleteTenant", "DELETE /v1/tenants/{id}", Admin, tag, "Delete a tenant without projects and tickets"), s.tenants, s.Operations.DeleteTenant)
	listIn(s, op("listTenantTasks", "GET /v1/tenants/{id}/tasks", Authenticated, tag, "List a tenant's tasks"), s.tenants, "tenantId", s.tasks, "state")

	listIn(s, op("listResourceTickets", "GET /v1/tenants/{id}/resource-tickets", Authenticated, tag, "List a tenant's resource tickets"), s.tenants, "tenantId", s.tickets, "name")
	createIn(s, op("createResourceTicket", "POST /v1/tenants/{id}/resource-tickets", Admin, tag, "Create a resource ticket"), s.tenants, s.Operations.CreateResourceTicket)
	get(s, op("getResourceTicket", "GET /v1/resource-tickets/{id}", Authenticated, tag, "Show a resource ticket"), s.tickets)
	act(s, op("deleteResourceTicket", "DELETE /v1/resource-tickets/{id}", Admin, tag, "Delete an unused resource ticket"), s.tickets, s.Operations.DeleteResourceTicket)
	listIn(s, op("listResourceTicketTasks", "GET /v1/resource-tickets/{id}/tasks", Authenticated, tag, "List a resource ticket's tasks"), s.tickets, "entityId", s.tasks, "state")

	listIn(s, op("listProjects", "GET /v1/tenants/{id}/projects", Authenticated, tag, "List a tenant's projects"), s.tenants, "tenantId", s.projects, "name")
	createIn(s, op("createProject", "POST /v1/tenants/{id}/projects", Admin, tag, "Create a project out of a resource ticket"), s.tenants, s.Operations.CreateProject)
	get(s, op("getProject", "GET /v1/projects/{id}", Authenticated, tag, "Show a project"), s.projects)
	act(s, op("deleteProject", "DELETE /v1/projects/{id}", Admin, tag, "Delete an empty project and return its quota"), s.projects, s.Operations.DeleteProject)
	listIn(s, op("listProjectTasks", "GET /v1/projects/{id}/tasks", Authenticated, tag, "List a project's tasks"), s.projects, "projectId", s.tasks, "state", "kind")
}
