//! Text that fits.

use halfheard_shared::text::plain;
use std::ops::Range;
use unicode_width::UnicodeWidthStr as _;

/// Which of `len` lines fit into `height` so that the chosen one is among them.
pub(super) fn window(len: usize, chosen: usize, height: usize) -> Range<usize> {
    let height = height.max(1);
    let from = (chosen + 1)
        .saturating_sub(height)
        .max(chosen.saturating_sub(height / 2));
    let from = from.min(len.saturating_sub(height));
    from..len.min(from + height)
}

/// Text in exactly `width` columns, cut with `…`.
pub(super) fn fit(text: &str, width: usize) -> String {
    let text = plain(text);
    let all = text.width();
    if all <= width {
        return text + &" ".repeat(width - all);
    }
    let mut cut = String::new();
    let mut used = 0;
    for letter in text.chars() {
        let mut buffer = [0; 4];
        let wide = letter.encode_utf8(&mut buffer).width();
        if used + wide + 1 > width {
            break;
        }
        cut.push(letter);
        used += wide;
    }
    if used < width {
        cut.push('…');
        used += 1;
    }
    cut + &" ".repeat(width - used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_line_is_always_in_the_window() {
        for (len, height) in [(0, 3), (1, 3), (7, 3), (7, 20), (50, 9)] {
            for chosen in 0..len {
                let window = window(len, chosen, height);
                assert!(window.contains(&chosen), "{chosen} of {len}: {window:?}");
                assert_eq!(window.len(), len.min(height));
            }
        }
    }

    #[test]
    fn text_fits_exactly_and_drives_no_terminal() {
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("abcdef", 0), "");
        assert_eq!(fit("語語語", 4), "語… ");
        assert!(!fit("a\x1b[2Jb", 9).contains('\x1b'));
    }
}
