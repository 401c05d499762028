//! [`Table`]: rows of cells, and how they look in Markdown, in HTML and on a terminal.

use std::fmt::{self, Write};

/// What a cell says beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    #[default]
    Plain,
    /// It stands for something good.
    Good,
    /// It stands for something bad.
    Bad,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// As it is read; escaped where it is shown.
    pub text: String,
    /// Shown in bold in Markdown, where it is bad; in colour and bold in HTML.
    pub mark: Mark,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell { text: text.into(), mark: Mark::Plain }
    }
}

impl Cell {
    /// With a mark.
    pub fn marked(text: impl Into<String>, mark: Mark) -> Self {
        Cell { text: text.into(), mark }
    }
}

/// Rows under a head. Columns from [`text_columns`](Table::text_columns) on have numbers and stand right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    head: Vec<String>,
    text_columns: usize,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table; the first `text_columns` columns stand left.
    pub fn new<H: Into<String>>(text_columns: usize, head: impl IntoIterator<Item = H>) -> Self {
        Table { head: head.into_iter().map(Into::into).collect(), text_columns, rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, surplus ones are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut cells: Vec<Cell> = cells.into_iter().collect();
        cells.resize(self.head.len(), Cell::default());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Its rows.
    #[cfg(test)]
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// As a table of GitHub's Markdown, with a line feed at its end.
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = String>| {
            cells.for_each(|cell| out.push_str(&format!("| {cell} ")));
            out.push_str("|\n");
        };
        line(&mut self.head.iter().map(|text| escape_markdown(text)));
        let rule = |at| if at < self.text_columns { "---" } else { "---:" };
        line(&mut (0..self.head.len()).map(|at| rule(at).to_owned()));
        for row in &self.rows {
            line(&mut row.iter().map(|cell| match cell.mark {
                Mark::Bad => format!("**{}**", escape_markdown(&cell.text)),
                Mark::Plain | Mark::Good => escape_markdown(&cell.text),
            }));
        }
        out
    }

    /// As a `table` element.
    pub fn to_html(&self) -> String {
        let mut out = "<table>\n<thead><tr>".to_owned();
        for (at, text) in self.head.iter().enumerate() {
            // A String takes everything.
            let _ = write!(out, "<th scope=\"col\"{}>{}</th>", self.class(at, Mark::Plain), escape_html(text));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (at, cell) in row.iter().enumerate() {
                let _ = write!(out, "<td{}>{}</td>", self.class(at, cell.mark), escape_html(&cell.text));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n");
        out
    }

    fn class(&self, column: usize, mark: Mark) -> &'static str {
        match (column < self.text_columns, mark) {
            (true, Mark::Plain) => "",
            (true, Mark::Good) => " class=\"good\"",
            (true, Mark::Bad) => " class=\"bad\"",
            (false, Mark::Plain) => " class=\"number\"",
            (false, Mark::Good) => " class=\"number good\"",
            (false, Mark::Bad) => " class=\"number bad\"",
        }
    }
}

/// In columns of even width, for terminals.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = |at: usize| self.rows.iter().map(move |row| row[at].text.chars().count());
        let widths: Vec<usize> = self
            .head
            .iter()
            .enumerate()
            .map(|(at, head)| column(at).chain([head.chars().count()]).max().unwrap_or(0))
            .collect();
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| cell.text.as_str()).collect());
        for row in std::iter::once(self.head.iter().map(String::as_str).collect::<Vec<_>>()).chain(rows) {
            let mut line = String::new();
            for (at, (text, &width)) in row.into_iter().zip(&widths).enumerate() {
                let gap = if at == 0 { "" } else { "  " };
                let written = if at < self.text_columns {
                    write!(line, "{gap}{text:<width$}")
                } else {
                    write!(line, "{gap}{text:>width$}")
                };
                written?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Text as Markdown shows it as it is, on one line, also in a cell of a table.
///
/// ```
/// assert_eq!(siltstone_benches::report::escape_markdown("a|b <c> _d_"), r"a\|b \<c\> \_d\_");
/// ```
pub fn escape_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => out.push(' '),
            '\\' | '|' | '<' | '>' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '&' => out.extend(['\\', character]),
            _ => out.push(character),
        }
    }
    out
}

/// Text for content and attributes of HTML and XML. Characters that XML does not have become question marks.
///
/// ```
/// assert_eq!(siltstone_benches::report::escape_html("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
/// ```
pub fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(1, ["workload", "kops/s"]);
        table.row(["fill|random".into(), Cell::marked("0.85 <loss>", Mark::Bad)]);
        table.row(["scan".into(), Cell::marked("12", Mark::Good), "too many".into()]);
        table.row(["seek".into()]);
        table
    }

    #[test]
    fn markdown_keeps_its_columns_whatever_the_text() {
        let expected = "| workload | kops/s |\n| --- | ---: |\n| fill\\|random | **0.85 \\<loss\\>** |\n| scan | 12 |\n| seek |  |\n";
        assert_eq!(table().to_markdown(), expected);
        assert_eq!(
            escape_markdown("two\nlines `code` *x* [y](z) # & \\"),
            r"two lines \`code\` \*x\* \[y\](z) \# \& \\"
        );
    }

    #[test]
    fn html_parses_and_says_what_the_table_says() {
        let html = table().to_html();
        let document = roxmltree::Document::parse(&html).unwrap();
        let texts = |tag: &str| -> Vec<String> {
            let found = document.descendants().filter(|node| node.has_tag_name(tag));
            found.map(|node| node.text().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(texts("th"), ["workload", "kops/s"]);
        assert_eq!(texts("td"), ["fill|random", "0.85 <loss>", "scan", "12", "seek", ""]);
        assert!(html.contains("class=\"number bad\""));
        let all: String = (0..=0x7f).map(char::from).collect();
        assert!(roxmltree::Document::parse(&format!("<p title=\"{0}\">{0}</p>", escape_html(&all))).is_ok());
    }

    #[test]
    fn a_terminal_gets_even_columns() {
        let expected = "workload          kops/s\nfill|random  0.85 <loss>\nscan                  12\nseek\n";
        assert_eq!(table().to_string(), expected);
    }
}
