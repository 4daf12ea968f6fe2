module pleiad.local/nodeimage/pause

go 1.26.0
