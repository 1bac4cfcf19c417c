//! Relative links in Markdown: each leads to a file, and its fragment to a heading there.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// What is wrong with the links of `page`, one line each.
pub fn broken(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut problems = Vec::new();
    for link in links(&text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
        let target: PathBuf = if path.is_empty() {
            page.to_owned()
        } else {
            folder.join(path)
        };
        if !target.exists() {
            problems.push(format!("{link}: no such file"));
        } else if !fragment.is_empty() {
            let headings = anchors(&fs::read_to_string(&target).unwrap_or_default());
            if !headings.iter().any(|anchor| anchor == fragment) {
                problems.push(format!("{link}: no such heading"));
            }
        }
    }
    problems
}

/// The targets of the links and images in `markdown`, outside code.
pub fn links(markdown: &str) -> Vec<String> {
    let text = prose(markdown).join("\n");
    let mut links = Vec::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find("](") {
        rest = &rest[start + 2..];
        if let Some(end) = rest.find(')') {
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            links.push(target.to_owned());
        }
    }
    links
}

/// The anchors of the headings in `markdown`, as GitHub and mdBook make them.
pub fn anchors(markdown: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut anchors = Vec::new();
    for line in without_fences(markdown) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == ' ';
        let anchor: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|&c| kept(c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let count = seen.entry(anchor.clone()).or_default();
        anchors.push(if *count == 0 {
            anchor
        } else {
            format!("{anchor}-{count}")
        });
        *count += 1;
    }
    anchors
}

fn without_fences(markdown: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    markdown.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The lines outside code blocks, without code spans.
fn prose(markdown: &str) -> Vec<String> {
    let spans = |line: &str| {
        let parts = line.split('`').enumerate();
        parts
            .filter(|(index, _)| index % 2 == 0)
            .map(|(_, part)| part)
            .collect()
    };
    without_fences(markdown).map(spans).collect()
}
