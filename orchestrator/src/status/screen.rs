//! A view in as many lines as a terminal has.

/// What stands in for lines that are left out; `--watch` can't be scrolled.
fn more(cut: usize) -> String {
    format!("and {cut} more lines; see `drover status`")
}

/// The fewest lines that are left of a section: a table's title and a row.
const LEAST: usize = 4;
/// The same of what stands beside.
const LEAST_ASIDE: usize = 2;

/// The sections' lines, as many as fit. What stands last of them, beside the rest,
/// gives way first; then the longest section does, where what is wrong (`wrong` is
/// its place) counts half.
pub(super) fn fit(sections: &[String], wrong: usize, height: usize) -> String {
    let all: Vec<Vec<&str>> = sections.iter().map(|text| text.lines().collect()).collect();
    let mut kept: Vec<usize> = all.iter().map(Vec::len).collect();
    // A section that is cut has one more line, which says so.
    let takes = |at: usize, kept: &[usize]| kept[at] + usize::from(kept[at] < all[at].len());
    while (0..all.len()).map(|at| takes(at, &kept)).sum::<usize>() > height {
        // The first line that is cut gives its place to the line that says so.
        let first = |at: usize| usize::from(kept[at] == all[at].len());
        let longest = (0..all.len())
            .filter(|at| {
                let least = match *at + 1 == all.len() {
                    true => LEAST_ASIDE,
                    false => LEAST,
                };
                kept[*at] > least + first(*at)
            })
            .max_by_key(|at| {
                let aside = *at + 1 == all.len();
                let length = match *at == wrong {
                    true => kept[*at] / 2,
                    false => kept[*at],
                };
                (aside, length)
            });
        let Some(longest) = longest else { break };
        kept[longest] -= 1 + first(longest);
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
        let none = String::new;
        let sections = [
            section("head", 2),
            section("object", 40),
            section("p", 4),
            none(),
            none(),
        ];
        let text = fit(&sections, 3, 21);
        assert_eq!(text.lines().count(), 21, "{text}");
        assert!(text.starts_with("head0\nhead1\nobject0\n"), "{text}");
        assert!(
            text.contains("object13\nand 26 more lines; see `drover status`\np0\n"),
            "{text}"
        );
        assert!(text.ends_with("p3\n"), "{text}");
        // One that is cut is cut by two: else its place would be lost to saying so.
        let text = fit(&[section("a", 6), section("b", 5), none()], 9, 10);
        let lines: Vec<&str> = text.lines().collect();
        let cut = "and 2 more lines; see `drover status`";
        assert_eq!(
            lines,
            ["a0", "a1", "a2", "a3", cut, "b0", "b1", "b2", "b3", "b4"]
        );
        let whole = fit(&sections, 3, 46);
        assert_eq!(whole, sections.concat());
        // However small it is.
        assert_eq!(fit(&sections, 3, 3).lines().count(), 3);
    }

    #[test]
    fn what_is_wrong_outlives_quotas_and_many_objects() {
        let section = |name: &str, lines: usize| -> String {
            (0..lines).map(|n| format!("{name}{n}\n")).collect()
        };
        let sections = |wrong, objects, quota| {
            [
                section("object", objects),
                section("wrong", wrong),
                section("quota", quota),
            ]
        };
        let count = |text: &str, name: &str| text.matches(name).count();
        // The quota's lines alone are enough to cut, though what is wrong is longer.
        let text = fit(&sections(10, 8, 6), 1, 21);
        assert_eq!(
            (count(&text, "wrong"), count(&text, "object")),
            (10, 8),
            "{text}"
        );
        assert_eq!(count(&text, "quota"), 2, "{text}");
        // Then objects, though there are fewer of them.
        let text = fit(&sections(10, 9, 6), 1, 20);
        assert_eq!(
            (count(&text, "wrong"), count(&text, "quota")),
            (10, 2),
            "{text}"
        );
        assert_eq!(count(&text, "object"), 6, "{text}");
        // Not all of the screen is for what is wrong.
        let text = fit(&sections(40, 20, 6), 1, 30);
        assert_eq!(text.lines().count(), 30, "{text}");
        assert_eq!(
            (count(&text, "wrong"), count(&text, "object")),
            (17, 8),
            "{text}"
        );
    }
}
