//! The nearest known key to one that is not known.

/// The candidate that is most like `given`, if any is near enough to be a slip of the keyboard or a missing prefix.
pub(crate) fn nearest<'a>(
    given: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (given.chars().count() / 4).clamp(2, 6);
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        let is_tail = candidate
            .strip_suffix(given)
            .is_some_and(|head| head.ends_with('.') && given.len() >= 4);
        let distance = if is_tail { 1 } else { distance(given, candidate) };
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    // Longer names are no slips; the bound keeps a hostile file from costing time.
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 8 || a.len() > 256 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let other = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + other);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row[j] = least;
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
