from __future__ import annotations

import numpy as np
import torch

from edgekit.students import gcn
from edgekit.students.sampling import run


def test_the_answer_is_that_of_the_dense_formula() -> None:
    student = gcn.build("tiny")
    graph = gcn.citations(9, 30, seed=2)
    adjacency = torch.zeros(9, 9)
    for start, end in graph.edges.T:
        if start != end:
            adjacency[end, start] += 1
    adjacency += torch.eye(9)
    scale = adjacency.sum(1).rsqrt()
    spread = scale[:, None] * adjacency * scale[None, :]
    x = torch.from_numpy(graph.x)
    with torch.no_grad():
        hidden = torch.relu(spread @ student.first.linear(x))
        expected = spread @ student.second.linear(hidden)
    got = run(student, {"x": graph.x, "edges": graph.edges})["output"]
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


def test_more_nodes_and_edges_of_zeros_change_nothing() -> None:
    student, graph = gcn.build("tiny"), gcn.citations(9, 30, seed=3)
    plain = run(student, {"x": graph.x, "edges": graph.edges})["output"]
    wider = {"x": np.pad(graph.x, ((0, 4), (0, 0))), "edges": np.pad(graph.edges, ((0, 0), (0, 7)))}
    np.testing.assert_allclose(run(student, wider)["output"][:9], plain, atol=1e-6)


def test_a_taught_one_reads_graphs_it_has_not_seen() -> None:
    student, graph = gcn.trained(), gcn.citations(600, 2400, seed=5)
    words_alone = (graph.x @ gcn.citations(4000, 1, seed=6).x.T).argmax(1)  # nearest of many labelled nodes
    nearest = gcn.citations(4000, 1, seed=6).labels[words_alone]
    top1 = (run(student, {"x": graph.x, "edges": graph.edges})["output"].argmax(1) == graph.labels).mean()
    assert top1 > 0.8 > (nearest == graph.labels).mean()
