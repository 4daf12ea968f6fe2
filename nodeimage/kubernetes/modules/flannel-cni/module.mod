module pleiad.local/nodeimage/flannel-cni

go 1.26.0
