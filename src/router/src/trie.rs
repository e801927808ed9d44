//! The trie of wildcard filters, those of all shards (`SEED-PUB-01`).
//!
//! A node is a filter's path so far. It knows which other shards have a filter that ends here, this
//! shard's own such filters, and the shared groups of the whole node on such a filter. A literal
//! level is its 64-bit fingerprint; no text is kept. Two levels whose fingerprints collide share a
//! node: therefore a shard adds and removes its route by node, not by text, and whoever delivers
//! checks the texts of its own filters. `+` and `#` are links of their own, so they collide with
//! nothing. A node that holds nothing goes, and its parents with it.

use crate::filters::FilterId;
use crate::fingerprint::{Fingerprinter, mix};
use crate::shard_sets::SetRef;
use crate::shared::GroupId;
use crate::slab::{Index, Slab};
use crate::tags::Tags;
use mqtt::topic;

/// The index of a node.
#[derive(Copy, Clone, Eq, PartialEq)]
pub(crate) struct NodeId(Index);

/// The end of a path.
pub(crate) struct Node {
    /// The fingerprint of the literal level that leads here, in halves so that no byte is padding.
    symbol: [u32; 2],
    parent: NodeId,
    plus: Option<NodeId>,
    hash: Option<NodeId>,
    /// How many literal children there are.
    literals: u32,
    /// Other shards with a filter that ends here.
    pub(crate) shards: SetRef,
    /// The first of this shard's filters that end here.
    pub(crate) local: Option<FilterId>,
    /// The first of the node's shared groups on a filter that ends here.
    pub(crate) groups: Option<GroupId>,
}

const _: () = assert!(size_of::<Node>() == 36);

impl Node {
    const fn new(parent: NodeId, symbol: [u32; 2]) -> Self {
        Self {
            symbol,
            parent,
            plus: None,
            hash: None,
            literals: 0,
            shards: SetRef::EMPTY,
            local: None,
            groups: None,
        }
    }

    /// Whether any shard has a filter that ends here, other than as a shared group.
    pub(crate) fn is_route(&self) -> bool {
        !self.shards.is_empty() || self.local.is_some()
    }

    fn is_needed(&self) -> bool {
        let leads_on = self.literals > 0 || self.plus.is_some() || self.hash.is_some();
        leads_on || self.is_route() || self.groups.is_some()
    }
}

/// What a walk keeps between its steps; reused, so that walks allocate nothing.
#[derive(Default)]
pub(crate) struct Walk {
    here: Vec<NodeId>,
    next: Vec<NodeId>,
}

/// The trie. It has no node at all while it holds nothing.
#[derive(Default)]
pub(crate) struct Trie {
    nodes: Slab<Node>,
    root: Option<NodeId>,
    /// Literal children by parent and level.
    literals: Tags<NodeId>,
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves are kept")]
fn symbol(level: &str, fingerprinter: &Fingerprinter) -> [u32; 2] {
    let bits = fingerprinter.of(level).bits();
    [bits as u32, (bits >> 32) as u32]
}

#[inline]
fn edge(parent: NodeId, symbol: [u32; 2]) -> u64 {
    mix(u64::from(symbol[0]) | u64::from(symbol[1]) << 32, u64::from(parent.0.number()) + 1)
}

impl Trie {
    /// How many nodes there are, the root among them.
    pub(crate) const fn len(&self) -> usize {
        self.nodes.len()
    }

    #[inline]
    fn literal(&self, parent: NodeId, symbol: [u32; 2]) -> Option<NodeId> {
        let is = |child: &NodeId| {
            let node = &self.nodes[child.0];
            node.parent == parent && node.symbol == symbol
        };
        self.literals.candidates(edge(parent, symbol)).find(is)
    }

    fn child(&self, parent: NodeId, level: &str, fingerprinter: &Fingerprinter) -> Option<NodeId> {
        match level {
            "+" => self.nodes[parent.0].plus,
            "#" => self.nodes[parent.0].hash,
            _ => self.literal(parent, symbol(level, fingerprinter)),
        }
    }

    /// The node at which `filter` ends, if there is one.
    pub(crate) fn find(&self, filter: &str, fingerprinter: &Fingerprinter) -> Option<NodeId> {
        topic::levels(filter)
            .try_fold(self.root?, |node, level| self.child(node, level, fingerprinter))
    }

    /// The node at which `filter` ends, made if there is none. The caller gives it a meaning, or
    /// calls [`Trie::prune`].
    pub(crate) fn insert(&mut self, filter: &str, fingerprinter: &Fingerprinter) -> NodeId {
        let root = self.root.unwrap_or_else(|| self.add_root());
        topic::levels(filter).fold(root, |parent, level| {
            let known = self.child(parent, level, fingerprinter);
            known.unwrap_or_else(|| self.add_child(parent, level, fingerprinter))
        })
    }

    fn add_root(&mut self) -> NodeId {
        // The root is its own parent; the slab is empty, so it gets the first place.
        let root = NodeId(Index::new(0));
        let placed = NodeId(self.nodes.insert(Node::new(root, [0; 2])));
        assert!(placed == root, "the root is the first node of an empty trie");
        self.root = Some(root);
        root
    }

    fn add_child(&mut self, parent: NodeId, level: &str, fingerprinter: &Fingerprinter) -> NodeId {
        let symbol = symbol(level, fingerprinter);
        let child = NodeId(self.nodes.insert(Node::new(parent, symbol)));
        let above = &mut self.nodes[parent.0];
        match level {
            "+" => above.plus = Some(child),
            "#" => above.hash = Some(child),
            _ => {
                above.literals += 1;
                self.literals.insert(edge(parent, symbol), child);
            }
        }
        child
    }

    /// Takes `node` out if it holds nothing any more, and then its parents likewise.
    pub(crate) fn prune(&mut self, mut id: NodeId) {
        while !self.nodes[id.0].is_needed() {
            let (parent, symbol) = (self.nodes[id.0].parent, self.nodes[id.0].symbol);
            if parent == id {
                self.nodes.remove(id.0);
                self.root = None;
                return;
            }
            let above = &mut self.nodes[parent.0];
            if above.plus == Some(id) {
                above.plus = None;
            } else if above.hash == Some(id) {
                above.hash = None;
            } else {
                above.literals -= 1;
                self.literals.remove(edge(parent, symbol), id);
            }
            self.nodes.remove(id.0);
            id = parent;
        }
    }

    /// Calls `hit` for each node whose filters match `topic`, level by level: at most once for each
    /// node of the trie, whatever the filters are.
    #[inline]
    pub(crate) fn walk<'a>(
        &'a self,
        topic: &str,
        fingerprinter: &Fingerprinter,
        walk: &mut Walk,
        mut hit: impl FnMut(&'a Node),
    ) {
        let Some(root) = self.root else { return };
        walk.here.clear();
        walk.here.push(root);
        // MQTT-4.7.2-1: a filter that begins with a wildcard does not match a topic that begins
        // with `$` (SEED-PROTO-15).
        let mut wildcards = !topic.starts_with('$');
        for level in topic::levels(topic) {
            let mut known = None;
            walk.next.clear();
            for &id in &walk.here {
                let node = &self.nodes[id.0];
                if wildcards {
                    if let Some(hash) = node.hash {
                        hit(&self.nodes[hash.0]);
                    }
                    walk.next.extend(node.plus);
                }
                if node.literals > 0 {
                    let symbol = *known.get_or_insert_with(|| symbol(level, fingerprinter));
                    walk.next.extend(self.literal(id, symbol));
                }
            }
            std::mem::swap(&mut walk.here, &mut walk.next);
            if walk.here.is_empty() {
                return;
            }
            wildcards = true;
        }
        for &id in &walk.here {
            let node = &self.nodes[id.0];
            hit(node);
            // MQTT-4.7.1-2: `#` stands for the parent level too.
            if let Some(hash) = node.hash {
                hit(&self.nodes[hash.0]);
            }
        }
    }
}

impl std::ops::Index<NodeId> for Trie {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }
}

impl std::ops::IndexMut<NodeId> for Trie {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }
}
