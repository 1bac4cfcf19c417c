//! Import cycles between the modules of a crate.
//!
//! Modules are compared with their siblings: `a` imports `b` if anything in or below `a` names something in or below
//! `b`. A name that the parent re-exports counts as its origin's. What a module takes from its parent itself is no edge,
//! so a parent should declare and re-export only.

use crate::modules::{self, Module, Segments};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
};

/// Siblings that import each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// The modules of the cycle; each imports the next, the last the first.
    pub modules: Vec<String>,
    /// For each of them, one of its imports of the next.
    pub imports: Vec<String>,
}

/// Each module with the siblings that it imports, and one such import.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// The import cycles of the crate whose root file is `root` (`src/lib.rs` or `src/main.rs`).
pub fn of_crate(root: &Path) -> Vec<Cycle> {
    let modules = modules::of_crate(root);
    let edges = edges(&modules);
    let mut cycles = Vec::new();
    for (parent, module) in &modules {
        let graph = siblings(parent, module, &edges);
        for names in find(&graph) {
            let next = names.iter().cycle().skip(1);
            let imports = names
                .iter()
                .zip(next)
                .map(|(from, to)| graph[from][to].clone())
                .collect();
            let path = |name: &String| {
                [&parent[..], std::slice::from_ref(name)]
                    .concat()
                    .join("::")
            };
            cycles.push(Cycle {
                modules: names.iter().map(path).collect(),
                imports,
            });
        }
    }
    cycles
}

/// From which module to which, both by their full paths, and which name it imports.
fn edges(modules: &BTreeMap<Segments, Module>) -> Vec<(&Segments, Segments, String)> {
    let mut edges = Vec::new();
    for (from, module) in modules {
        for path in &module.paths {
            if let Some(to) = resolve(modules, path.clone(), 0) {
                let name = path.last().cloned().unwrap_or_default();
                edges.push((from, to, name));
            }
        }
    }
    edges
}

/// The module that defines what `path` names, if it is of this crate.
fn resolve(modules: &BTreeMap<Segments, Module>, path: Segments, depth: usize) -> Option<Segments> {
    // Re-exports may refer to each other; real ones are a few steps long.
    if depth > 16 {
        return None;
    }
    let mut at = Vec::new();
    for (index, segment) in path.iter().enumerate() {
        let module = modules.get(&at)?;
        if module.children.contains(segment) {
            at.push(segment.clone());
            continue;
        }
        let rest = &path[index + 1..];
        if let Some(target) = module.bindings.get(segment) {
            let longer = [target.clone(), rest.to_vec()].concat();
            return (longer != path).then(|| resolve(modules, longer, depth + 1))?;
        }
        if module.items.contains(segment) {
            return Some(at);
        }
        return module.globs.iter().find_map(|glob| {
            let longer = [glob.clone(), path[index..].to_vec()].concat();
            (longer != path).then(|| resolve(modules, longer, depth + 1))?
        });
    }
    modules.contains_key(&at).then_some(at)
}

fn siblings(parent: &Segments, module: &Module, edges: &[(&Segments, Segments, String)]) -> Graph {
    let mut graph: Graph = module
        .children
        .iter()
        .map(|child| (child.clone(), BTreeMap::new()))
        .collect();
    let child_of = |path: &Segments| path.strip_prefix(&parent[..])?.first().cloned();
    for (from, to, name) in edges {
        let (Some(child), Some(sibling)) = (child_of(from), child_of(to)) else {
            continue;
        };
        if child != sibling
            && let Some(imported) = graph.get_mut(&child)
        {
            imported.entry(sibling).or_insert_with(|| {
                format!("{} imports {name} from {}", from.join("::"), to.join("::"))
            });
        }
    }
    graph
}

/// One cycle for each group of modules that reach each other, by the shortest way round from its first.
fn find(graph: &Graph) -> Vec<Vec<String>> {
    let mut cycles: Vec<Vec<String>> = Vec::new();
    for start in graph.keys() {
        if !cycles.iter().any(|cycle| cycle.contains(start)) {
            cycles.extend(shortest_way_back(graph, start));
        }
    }
    cycles
}

fn shortest_way_back(graph: &Graph, start: &String) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in graph.get(way.last()?)?.keys() {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push_back([way.clone(), vec![next.clone()]].concat());
            }
        }
    }
    None
}
