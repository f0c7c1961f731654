//! Text from outside, made fit to be shown.

/// What the page gets: control characters and invisible direction marks become spaces, and at
/// most `max` characters are kept. The page itself treats all text as text, never as markup.
pub(crate) fn plain(text: &str, max: usize) -> String {
    bounded(text, max, |c| if is_hidden(c) { ' ' } else { c })
}

/// What older pages get, which put text into innerHTML: as [`plain`], and each character that
/// HTML could read as syntax becomes its look-alike.
pub(crate) fn without_markup(text: &str, max: usize) -> String {
    bounded(text, max, |c| match c {
        '<' => '‹',
        '>' => '›',
        '&' => '＆',
        '"' => '”',
        '\'' | '`' => '’',
        c if is_hidden(c) => ' ',
        c => c,
    })
}

fn bounded(text: &str, max: usize, map: impl Fn(char) -> char) -> String {
    let mut characters = text.chars();
    let mut clean: String = characters.by_ref().take(max).map(map).collect();
    if characters.next().is_some() {
        clean.push('…');
    }
    clean
}

/// Control characters, and the marks that reorder or hide text (Unicode TR 36, "bidirectional").
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_harmless_and_stays_readable() {
        assert_eq!(
            without_markup("<img src=x onerror='a&b'>", 64),
            "‹img src=x onerror=’a＆b’›"
        );
        assert_eq!(
            without_markup("device-001 is 5 m deep", 64),
            "device-001 is 5 m deep"
        );
    }

    #[test]
    fn control_and_direction_characters_become_spaces() {
        assert_eq!(plain("a\u{1b}[31m\nb\u{202e}c", 64), "a [31m b c");
        assert_eq!(plain("Überlauf <b>", 64), "Überlauf <b>");
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_marked() {
        assert_eq!(plain("ääää", 3), "äää…");
        assert_eq!(plain("äää", 3), "äää");
    }
}
