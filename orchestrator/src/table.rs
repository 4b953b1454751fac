//! Tables that fit a terminal of 80 columns.

/// How wide a line may be.
pub const WIDTH: usize = 80;

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Text, wrapped where the line would be too long.
    Text(&'static str),
    /// A number, never cut.
    Number(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Column::Text(title) | Column::Number(title) => title,
        }
    }
}

/// A table as lines, none longer than [`WIDTH`] as long as its numbers fit.
pub fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(at))
                .map(|cell| length(cell));
            cells.chain([length(column.title())]).max().unwrap_or(0)
        })
        .collect();
    let gaps = columns.len().saturating_sub(1);
    let whole = widths.iter().sum::<usize>();
    // A narrow gap is easier to read than a name in two lines.
    let gap = match whole + 2 * gaps > WIDTH && whole + gaps <= WIDTH {
        true => " ",
        false => "  ",
    };
    while widths.iter().sum::<usize>() + gaps * gap.len() > WIDTH {
        let widest = columns
            .iter()
            .enumerate()
            .filter(|(at, column)| matches!(column, Column::Text(_)) && widths[*at] > 6)
            .max_by_key(|(at, _)| widths[*at]);
        let Some((at, _)) = widest else { break };
        widths[at] -= 1;
    }
    let mut text = String::new();
    let titles = columns
        .iter()
        .map(|column| column.title().to_owned())
        .collect();
    for row in std::iter::once(&titles).chain(rows) {
        let cells: Vec<Vec<String>> = widths
            .iter()
            .enumerate()
            .map(|(at, width)| lines(row.get(at).map_or("", String::as_str), *width))
            .collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0).max(1);
        for number in 0..height {
            let mut line = String::new();
            for (at, column) in columns.iter().enumerate() {
                let cell = cells[at].get(number).map_or("", String::as_str);
                let pad = " ".repeat(widths[at].saturating_sub(length(cell)));
                match column {
                    Column::Text(_) => line.extend([cell, pad.as_str()]),
                    Column::Number(_) => line.extend([pad.as_str(), cell]),
                }
                line.push_str(gap);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// A text in lines of at most that many characters, broken between words where
/// they allow it; nothing of it is lost but spaces.
fn lines(text: &str, width: usize) -> Vec<String> {
    let text = text.replace(char::is_control, " ");
    if length(&text) <= width {
        return vec![text];
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && length(&line) + 1 + length(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        while length(&line) > width {
            let rest = line.split_off(line.char_indices().nth(width).map_or(0, |(at, _)| at));
            lines.push(std::mem::replace(&mut line, rest));
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A text in that many characters, with an ellipsis where it was cut.
pub fn fit(text: &str, width: usize) -> String {
    let text = text.replace(char::is_control, " ");
    if length(&text) <= width {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// The same for a key, whose end says most: the ellipsis stands in the middle.
pub fn fit_middle(text: &str, width: usize) -> String {
    let text = text.replace(char::is_control, " ");
    let all = length(&text);
    if all <= width {
        return text;
    }
    let kept = width.saturating_sub(1);
    let start: String = text.chars().take(kept / 2).collect();
    let end: String = text.chars().skip(all - (kept - kept / 2)).collect();
    format!("{start}…{end}")
}

/// A text over several lines, each with the indentation in front.
pub fn wrap(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && length(indent) + length(&line) + 1 + length(word) > WIDTH {
            lines.extend([indent, line.as_str(), "\n"]);
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.extend([indent, line.as_str(), "\n"]);
    }
    lines
}

/// A number in at most eight characters.
pub fn number(value: u64) -> String {
    if value < 100_000_000 {
        value.to_string()
    } else {
        format!("{:.1}M", value as f64 / 1e6)
    }
}

/// `1 broker`, `2 brokers`.
pub fn counted(number: u64, one: &str, several: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {several}"),
    }
}

/// Whether rows that say nothing are left out of a table, and the line that stands
/// for them: not for one alone, and not where nothing else would be left.
pub fn folded(empty: usize, all: usize) -> Option<String> {
    (empty > 1 && empty < all).then(|| format!("and {empty} more without records\n"))
}

/// A span of time, roughly.
pub fn seconds(value: Option<u64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(s) if s < 120 => format!("{s}s"),
        Some(s) if s < 7200 => format!("{}m", s / 60),
        Some(s) if s < 48 * 3600 => format!("{}h", s / 3600),
        Some(s) => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_and_is_aligned() {
        let columns = [
            Column::Text("NAME"),
            Column::Number("N"),
            Column::Text("WHY"),
        ];
        let row = |a: &str, b: &str, c: &str| vec![a.to_owned(), b.to_owned(), c.to_owned()];
        let text = table(&columns, &[row("a", "1", ""), row("bé", "22", "ok")]);
        assert_eq!(text, "NAME   N  WHY\na      1\nbé    22  ok\n");
        let long = "x".repeat(200);
        let text = table(&columns, &[row(&long, "123", &long)]);
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        assert!(text.contains("x  123  x"), "{text}");
        assert_eq!(text.matches('x').count(), 400, "{text}");
        let reason = "a reason of many words ".repeat(10);
        let text = table(&columns, &[row("bé", "22", &reason)]);
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        assert_eq!(text.matches("reason").count(), 10, "{text}");
    }

    #[test]
    fn columns_move_closer_before_a_name_is_broken() {
        let columns = [
            Column::Text("NAME"),
            Column::Number("N"),
            Column::Number("M"),
        ];
        let row = vec!["x".repeat(70), "1234".to_owned(), "5678".to_owned()];
        let text = table(&columns, std::slice::from_ref(&row));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with("x 1234 5678\n"), "{text}");
    }

    #[test]
    fn rows_that_say_nothing_are_one_line() {
        let line = folded(21, 28);
        assert_eq!(line.as_deref(), Some("and 21 more without records\n"));
        assert_eq!(
            (folded(1, 28), folded(3, 3), folded(0, 3)),
            (None, None, None)
        );
        assert_eq!(counted(1, "broker", "brokers"), "1 broker");
        assert_eq!(counted(0, "broker", "brokers"), "0 brokers");
    }

    #[test]
    fn a_key_is_cut_in_its_middle() {
        assert_eq!(fit_middle("s/Contact/1", 11), "s/Contact/1");
        assert_eq!(fit_middle("s/Contact/123", 9), "s/Co…/123");
        assert_eq!(fit_middle("s/Contact/123", 1), "…");
    }

    #[test]
    fn words_are_wrapped() {
        let text = wrap(&"word ".repeat(40), "    ");
        assert!(
            text.lines()
                .all(|l| l.chars().count() <= WIDTH && l.starts_with("    "))
        );
        assert_eq!(text.matches("word").count(), 40);
    }
}
