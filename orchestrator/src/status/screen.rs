//! A view in as many lines as a terminal has.

/// What stands in for lines that are left out; `--watch` can't be scrolled.
fn more(cut: usize) -> String {
    format!("and {cut} more; see `drover status`")
}

/// The fewest lines that are left of a section.
const LEAST: usize = 2;

/// The sections' lines, as many as fit: the longest section is cut first.
pub(super) fn fit(sections: &[String], height: usize) -> String {
    let all: Vec<Vec<&str>> = sections.iter().map(|text| text.lines().collect()).collect();
    let mut kept: Vec<usize> = all.iter().map(Vec::len).collect();
    // A section that is cut has one more line, which says so.
    let takes = |at: usize, kept: &[usize]| kept[at] + usize::from(kept[at] < all[at].len());
    while (0..all.len()).map(|at| takes(at, &kept)).sum::<usize>() > height {
        let longest = (0..all.len())
            .filter(|at| kept[*at] > LEAST)
            .max_by_key(|at| kept[*at]);
        let Some(longest) = longest else { break };
        kept[longest] -= 1;
    }
    let mut lines = Vec::new();
    for (section, kept) in all.iter().zip(kept) {
        lines.extend(section[..kept].iter().map(|line| (*line).to_owned()));
        if kept < section.len() {
            lines.push(more(section.len() - kept));
        }
    }
    lines.truncate(height);
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_section_gives_way_and_says_how_much() {
        let section = |name: &str, lines: usize| -> String {
            (0..lines).map(|n| format!("{name}{n}\n")).collect()
        };
        let sections = [section("head", 2), section("object", 40), section("p", 4)];
        let text = fit(&sections, 21);
        assert_eq!(text.lines().count(), 21, "{text}");
        assert!(text.starts_with("head0\nhead1\nobject0\n"), "{text}");
        assert!(
            text.contains("object13\nand 26 more; see `drover status`\np0\n"),
            "{text}"
        );
        assert!(text.ends_with("p3\n"), "{text}");
        let whole = fit(&sections, 46);
        assert_eq!(whole, sections.concat());
        // However small it is.
        assert_eq!(fit(&sections, 3).lines().count(), 3);
    }
}
