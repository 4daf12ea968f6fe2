package kubernetes

import (
	"fmt"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

// BenchmarkDecide is what one look at a cluster costs when nothing is to be done.
func BenchmarkDecide(b *testing.B) {
	for _, workers := range []int{2, 1000} {
		b.Run(fmt.Sprintf("%d workers", workers), func(b *testing.B) {
			w := newWorld(&model.Cluster{Meta: model.Meta{Name: "demo"}, WorkerCount: workers, PodCIDR: "10.240.0.0/13"})
			for !w.last.Ready {
				w.decide()
				if err := w.carryOut(); err != nil {
					b.Fatal(err)
				}
				for _, n := range w.view.Nodes {
					if n.Plan != nil {
						if err := w.run(n.VM.Name, "all"); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			for b.Loop() {
				w.decide()
			}
		})
	}
}
