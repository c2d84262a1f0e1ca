"""Finds circles in a directed graph, given as {node: set of nodes}."""

import collections


def components(graph):
    """The strongly connected components with more than one node, by Tarjan's algorithm without recursion."""
    order, lowest, on_stack, stack, found = {}, {}, set(), [], []
    for root in sorted(graph):
        if root in order:
            continue
        work = [(root, iter(sorted(graph[root])))]
        order[root] = lowest[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            following = next((other for other in successors if other not in order or other in on_stack), None)
            if following is None:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    component = set()
                    while node not in component:
                        component.add(stack.pop())
                    on_stack -= component
                    if len(component) > 1:
                        found.append(component)
            elif following in order:
                lowest[node] = min(lowest[node], order[following])
            else:
                order[following] = lowest[following] = len(order)
                stack.append(following)
                on_stack.add(following)
                work.append((following, iter(sorted(graph.get(following, ())))))
    return found


def covering(graph, component):
    """Shortest circles of a component, so many that each of its edges is on one of them; as lists of nodes."""
    edges = {(a, b) for a in component for b in graph[a] if b in component}
    candidates = {}
    for a, b in edges:
        circle = [a, *_shortest_path(graph, component, b, a)[:-1]]
        turn = circle.index(min(circle))
        circle = tuple(circle[turn:] + circle[:turn])
        candidates[circle] = len(circle)
    chosen = []
    for circle in sorted(candidates, key=lambda circle: (len(circle), circle)):
        its_edges = set(zip(circle, circle[1:] + circle[:1]))
        if its_edges & edges:
            edges -= its_edges
            chosen.append(circle)
    return chosen


def _shortest_path(graph, component, start, goal):
    previous, queue = {start: None}, collections.deque([start])
    while queue:
        node = queue.popleft()
        if node == goal:
            path = []
            while node is not None:
                path.append(node)
                node = previous[node]
            return path[::-1]
        for following in sorted(graph[node] & component):
            if following not in previous:
                previous[following] = node
                queue.append(following)
    raise ValueError(f"{goal} can't be reached from {start}")
