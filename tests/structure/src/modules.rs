//! The modules of a crate, with the paths that each of them names.

use proc_macro2::{TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use syn::visit::{self, Visit};

/// A path from the crate's root: `["nn", "bert", "Bert"]`.
pub(crate) type Segments = Vec<String>;

/// One module outside tests.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Names of the modules declared in it.
    pub(crate) children: BTreeSet<String>,
    /// Names that it brings into scope by `use`, with what they stand for.
    pub(crate) bindings: BTreeMap<String, Segments>,
    /// What it brings into scope by `use …::*`.
    pub(crate) globs: Vec<Segments>,
    /// Names of the items defined in it.
    pub(crate) items: BTreeSet<String>,
    /// Every path named in it that begins in this crate, not yet resolved.
    pub(crate) paths: BTreeSet<Segments>,
}

/// The modules of the crate whose root file is `root`, by their path.
pub(crate) fn of_crate(root: &Path) -> BTreeMap<Segments, Module> {
    let mut modules = BTreeMap::new();
    let folder = root.parent().unwrap_or(Path::new(""));
    read_file(root, folder, Vec::new(), &mut modules);
    modules
}

fn read_file(file: &Path, folder: &Path, path: Segments, modules: &mut BTreeMap<Segments, Module>) {
    let parsed = fs::read_to_string(file)
        .ok()
        .and_then(|text| syn::parse_file(&text).ok());
    if let Some(parsed) = parsed {
        read_items(&parsed.items, folder, path, modules);
    }
}

/// Reads the items of one module; its children's files are in `folder`.
fn read_items(
    items: &[syn::Item],
    folder: &Path,
    path: Segments,
    modules: &mut BTreeMap<Segments, Module>,
) {
    let mut reader = Reader {
        path: path.clone(),
        ..Reader::default()
    };
    for item in items {
        let syn::Item::Mod(declared) = item else {
            reader.visit_item(item);
            continue;
        };
        if is_test(&declared.attrs) {
            continue;
        }
        let name = declared.ident.to_string();
        reader.module.children.insert(name.clone());
        let below = [path.clone(), vec![name.clone()]].concat();
        if let Some((_, items)) = &declared.content {
            read_items(items, &folder.join(&name), below, modules);
        } else if let Some(file) = file_of(declared, folder, &name) {
            read_file(&file, &folder.join(&name), below, modules);
        }
    }
    modules.insert(path, reader.module);
}

fn file_of(declared: &syn::ItemMod, folder: &Path, name: &str) -> Option<PathBuf> {
    let named = declared
        .attrs
        .iter()
        .find_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        });
    let beside = folder.join(format!("{name}.rs"));
    let candidates = [
        named.map(|named| folder.join(named)),
        Some(beside),
        Some(folder.join(name).join("mod.rs")),
    ];
    candidates.into_iter().flatten().find(|file| file.is_file())
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list
            .tokens
            .to_string()
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| word == "test"),
        other => other.path().is_ident("test"),
    })
}

/// Collects what one module names.
#[derive(Default)]
struct Reader {
    path: Segments,
    module: Module,
    /// How deep in functions and blocks the reader is: names bound there are not the module's.
    depth: usize,
}

impl Reader {
    /// `segments` with `crate`, `self` and `super` replaced, where it begins so.
    fn absolute(&self, segments: &[String]) -> Option<Segments> {
        let mut base = match segments.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => self.path.clone(),
            "super" => self.path[..self.path.len().checked_sub(1)?].to_vec(),
            _ => return None,
        };
        let mut rest = &segments[1..];
        while rest.first().is_some_and(|segment| segment == "super") {
            base.pop()?;
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// Notes a path that stands in the text: as it begins in this crate, or by its first name in this module's scope.
    fn name(&mut self, segments: Segments) {
        let path = self
            .absolute(&segments)
            .unwrap_or_else(|| [self.path.clone(), segments].concat());
        self.module.paths.insert(path);
    }

    fn bind(&mut self, tree: &syn::UseTree, prefix: &Segments) {
        let longer = |name: &syn::Ident| [prefix.clone(), vec![name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.bind(&path.tree, &longer(&path.ident)),
            syn::UseTree::Name(name) => {
                self.bind_name(&name.ident.to_string(), longer(&name.ident))
            }
            syn::UseTree::Rename(renamed) => {
                self.bind_name(&renamed.rename.to_string(), longer(&renamed.ident));
            }
            syn::UseTree::Glob(_) => {
                if let Some(path) = self.in_crate(prefix) {
                    self.module.paths.insert(path.clone());
                    self.module.globs.push(path);
                }
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.bind(tree, prefix);
                }
            }
        }
    }

    fn bind_name(&mut self, name: &str, mut target: Segments) {
        let name = if name == "self" {
            target.pop();
            target.last().cloned().unwrap_or_default()
        } else {
            name.to_owned()
        };
        if let Some(path) = self.in_crate(&target) {
            self.module.paths.insert(path.clone());
            if self.depth == 0 {
                self.module.bindings.insert(name, path);
            }
        }
    }

    /// A path of a `use`, absolute. One that begins with a crate's name resolves to nothing later.
    fn in_crate(&self, segments: &Segments) -> Option<Segments> {
        match segments.first()?.as_str() {
            "crate" | "self" | "super" => self.absolute(segments),
            _ => Some([self.path.clone(), segments.clone()].concat()),
        }
    }

    /// Paths among the tokens of a macro, which are not parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Segments = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.scanned(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.scanned(&mut path);
                    colons = 0;
                    self.scan(group.stream());
                }
                _ => {
                    self.scanned(&mut path);
                    colons = 0;
                }
            }
        }
        self.scanned(&mut path);
    }

    fn scanned(&mut self, path: &mut Segments) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.name(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if self.depth == 0 {
            self.module.items.extend(item_name(item));
        }
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs[..],
            syn::Item::Impl(item) => &item.attrs[..],
            syn::Item::Use(item) => &item.attrs[..],
            _ => &[],
        };
        if is_test(attributes) {
            return;
        }
        if let syn::Item::Use(item) = item {
            self.bind(&item.tree, &Vec::new());
            return;
        }
        self.depth += 1;
        visit::visit_item(self, item);
        self.depth -= 1;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.name(
                path.segments
                    .iter()
                    .map(|segment| segment.ident.to_string())
                    .collect(),
            );
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.scan(called.tokens.clone());
    }
}

fn item_name(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
