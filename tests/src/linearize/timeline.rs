//! The calls and returns of a history in order of time, as a linked list.
//!
//! An operation that the search places is lifted out, and put back when the
//! search retreats. Lifting and putting back cost the same few writes wherever
//! the operation stands, because a lifted node keeps its own links. That works
//! only if nodes return in the reverse order of their lifting.

use super::Operation;

/// A dense number for an operation: those with a known outcome first, in the
/// order of their calls, then those without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpId(pub(super) usize);

/// A place in the list; a greater one is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(usize);

/// What happens at a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The operation may be placed from here on.
    Call(OpId),
    /// The operation must have been placed by now.
    Return(OpId),
}

/// The list; circular, with a sentinel that carries no event.
pub(super) struct Timeline {
    events: Vec<Event>,
    next: Vec<usize>,
    prev: Vec<usize>,
    /// By operation; `None` for an unknown outcome.
    returns: Vec<Option<usize>>,
    /// By operation: its index in the history.
    index: Vec<usize>,
    completed: usize,
}

impl Timeline {
    /// # Panics
    /// When an operation returns before its call.
    pub(super) fn new<I, O>(ops: &[Operation<I, O>]) -> Timeline {
        let mut index: Vec<usize> = (0..ops.len()).collect();
        index.sort_by_key(|&i| (ops[i].output.is_none(), ops[i].invoke));
        let completed = ops.iter().filter(|op| op.output.is_some()).count();

        // The second field makes calls precede returns at an equal time.
        let mut timed = Vec::with_capacity(ops.len() + completed);
        for (id, &i) in index.iter().enumerate() {
            let op = &ops[i];
            timed.push((op.invoke, 0u8, Event::Call(OpId(id))));
            if op.output.is_some() {
                assert!(
                    op.invoke <= op.ret,
                    "operation {i} of client {} returns at {}, before its call at {}: \
                     the clock of the recording is not monotonic",
                    op.client,
                    op.ret,
                    op.invoke,
                );
                timed.push((op.ret, 1u8, Event::Return(OpId(id))));
            }
        }
        timed.sort_by_key(|&(time, kind, _)| (time, kind));

        let events: Vec<Event> = timed.into_iter().map(|(_, _, event)| event).collect();
        let mut returns = vec![None; ops.len()];
        for (node, event) in events.iter().enumerate() {
            if let Event::Return(id) = event {
                returns[id.0] = Some(node);
            }
        }
        let len = events.len() + 1;
        let next = (0..len).map(|node| (node + 1) % len).collect();
        let prev = (0..len).map(|node| (node + len - 1) % len).collect();
        Timeline { events, next, prev, returns, index, completed }
    }

    /// How many operations have a known outcome.
    pub(super) fn completed(&self) -> usize {
        self.completed
    }

    /// Whether the outcome of `id` is known.
    pub(super) fn is_completed(&self, id: OpId) -> bool {
        id.0 < self.completed
    }

    /// Where `id` stands in the history.
    pub(super) fn index(&self, id: OpId) -> usize {
        self.index[id.0]
    }

    /// The indices in the history, in the order of [`OpId`].
    pub(super) fn indices(&self) -> &[usize] {
        &self.index
    }

    /// The first node of the list.
    pub(super) fn first(&self) -> Node {
        Node(self.next[self.sentinel()])
    }

    /// The node after `node`.
    pub(super) fn after(&self, node: Node) -> Node {
        Node(self.next[node.0])
    }

    /// What happens at `node`; `None` past the end of the list.
    pub(super) fn event(&self, node: Node) -> Option<Event> {
        self.events.get(node.0).copied()
    }

    /// Takes the call at `node`, of operation `id`, out of the list, and its
    /// return with it.
    pub(super) fn lift(&mut self, node: Node, id: OpId) {
        self.unlink(node.0);
        if let Some(ret) = self.returns[id.0] {
            self.unlink(ret);
        }
    }

    /// Undoes the latest [`Timeline::lift`] that is not yet undone.
    pub(super) fn put_back(&mut self, node: Node, id: OpId) {
        if let Some(ret) = self.returns[id.0] {
            self.relink(ret);
        }
        self.relink(node.0);
    }

    fn sentinel(&self) -> usize {
        self.events.len()
    }

    fn unlink(&mut self, node: usize) {
        let (prev, next) = (self.prev[node], self.next[node]);
        self.next[prev] = next;
        self.prev[next] = prev;
    }

    fn relink(&mut self, node: usize) {
        let (prev, next) = (self.prev[node], self.next[node]);
        self.next[prev] = node;
        self.prev[next] = node;
    }
}
