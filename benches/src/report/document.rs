//! [`Document`]: a report's parts in order, and how they look in Markdown and as a page of HTML that needs no other file.

use std::fmt::Write;

use super::table::{Table, escape_html, escape_markdown};

/// What a report consists of.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it is about.
    pub title: String,
    /// From top to bottom.
    pub parts: Vec<Part>,
}

/// One part of it.
#[derive(Clone, Debug)]
pub enum Part {
    /// A heading of a level from 2 to 4.
    Heading(u8, String),
    /// A paragraph.
    Text(String),
    /// Items.
    List(Vec<String>),
    /// Text that is Markdown already; a page of HTML shows it as it is written.
    Markdown(String),
    /// A table.
    Table(Table),
    /// A plot, with what it shows as a table beside it; only in HTML.
    Plot(Plot),
    /// Parts that a reader opens; only in HTML.
    Fold(String, Vec<Part>),
    /// Text with line feeds, as an engine printed it; only in HTML.
    Printed(String),
}

/// A drawing with its figures.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// An `svg` element, or why there is none.
    pub svg: Result<String, String>,
    /// The same in figures.
    pub table: Table,
}

/// Dark on light, with the fonts that the reader's machine has.
const STYLE: &str = "
:root { color-scheme: light; }
body { background: #fff; color: #1a1a1a; font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 96em; padding: 0 1em; }
h1, h2, h3, h4 { line-height: 1.2; margin: 1.6em 0 .6em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8em 0; }
th, td { border: 1px solid #bbb; padding: .15em .5em; text-align: left; vertical-align: top; }
th { background: #eee; }
.number { text-align: right; white-space: nowrap; }
.good { background: #e2f2e2; }
.bad { background: #fbe3e0; font-weight: bold; }
.wide { overflow-x: auto; }
figure { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; margin: 1em 0; }
figcaption { flex-basis: 100%; font-weight: bold; }
svg { max-width: 100%; height: auto; }
details { border-left: 3px solid #bbb; margin: .5em 0; padding-left: 1em; }
summary { cursor: pointer; }
pre { overflow-x: auto; background: #f6f6f6; padding: .5em; }
.markdown { white-space: pre-line; }
";

impl Document {
    /// As Markdown, without plots and what else only HTML has.
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# {}\n", escape_markdown(&self.title));
        for part in &self.parts {
            let text = match part {
                Part::Heading(level, text) => format!("{} {}\n", "#".repeat((*level).into()), escape_markdown(text)),
                Part::Text(text) => format!("{}\n", escape_markdown(text)),
                Part::List(items) => items.iter().map(|item| format!("- {}\n", escape_markdown(item))).collect(),
                Part::Markdown(text) => format!("{}\n", text.trim_end()),
                Part::Table(table) => table.to_markdown(),
                Part::Plot(_) | Part::Fold(..) | Part::Printed(_) => continue,
            };
            out.push('\n');
            out.push_str(&text);
        }
        out
    }

    /// As text for a terminal, without plots and what else only HTML has.
    pub fn to_text(&self) -> String {
        let mut out = format!("{}\n", self.title);
        for part in &self.parts {
            let text = match part {
                Part::Heading(2, text) => format!("=== {text}\n"),
                Part::Heading(_, text) => format!("--- {text}\n"),
                Part::Text(text) | Part::Markdown(text) => format!("{}\n", text.trim_end()),
                Part::List(items) => items.iter().map(|item| format!("- {item}\n")).collect(),
                Part::Table(table) => table.to_string(),
                Part::Plot(_) | Part::Fold(..) | Part::Printed(_) => continue,
            };
            out.push('\n');
            out.push_str(&text);
        }
        out
    }

    /// As a page that is well-formed XML as well, and loads nothing.
    pub fn to_html(&self) -> String {
        let title = escape_html(&self.title);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        );
        self.parts.iter().for_each(|part| part.write_html(&mut out));
        out.push_str("</body>\n</html>\n");
        out
    }
}

impl Part {
    fn write_html(&self, out: &mut String) {
        // A String takes everything.
        let _ = match self {
            Part::Heading(level, text) => writeln!(out, "<h{level}>{}</h{level}>", escape_html(text)),
            Part::Text(text) => writeln!(out, "<p>{}</p>", escape_html(text)),
            Part::Markdown(text) => writeln!(out, "<p class=\"markdown\">{}</p>", escape_html(text.trim())),
            Part::Printed(text) => writeln!(out, "<pre>{}</pre>", escape_html(text)),
            Part::Table(table) => writeln!(out, "<div class=\"wide\">{}</div>", table.to_html()),
            Part::Plot(plot) => plot.write_html(out),
            Part::List(items) => {
                let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escape_html(item))).collect();
                writeln!(out, "<ul>\n{items}</ul>")
            }
            Part::Fold(summary, parts) => {
                let written = writeln!(out, "<details><summary>{}</summary>", escape_html(summary));
                parts.iter().for_each(|part| part.write_html(out));
                written.and_then(|()| writeln!(out, "</details>"))
            }
        };
    }
}

impl Plot {
    fn write_html(&self, out: &mut String) -> std::fmt::Result {
        let title = escape_html(&self.title);
        writeln!(out, "<figure><figcaption>{title}</figcaption>")?;
        match &self.svg {
            // Who cannot see it is told what it is, and finds the figures in the table.
            Ok(svg) => {
                writeln!(out, "{}", svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{title}\" "), 1))?
            }
            Err(error) => writeln!(out, "<p>This plot could not be drawn: {}</p>", escape_html(error))?,
        }
        writeln!(out, "<div class=\"wide\">{}</div></figure>", self.table.to_html())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let mut table = Table::new(1, ["engine", "kops/s"]);
        table.row(["a<b".into(), "1".into()]);
        let plot = |svg: Result<&str, &str>| {
            let svg = svg.map(str::to_owned).map_err(str::to_owned);
            Part::Plot(Plot { title: "bars & \"lines\"".to_owned(), svg, table: table.clone() })
        };
        let parts = vec![
            Part::Heading(2, "One | two".to_owned()),
            Part::Text("<script>alert(1)</script>".to_owned()),
            Part::List(vec!["x".to_owned(), "y & z".to_owned()]),
            Part::Markdown("no *like* for like < ever\n\nand more".to_owned()),
            Part::Table(table.clone()),
            plot(Ok("<svg width=\"1\" xmlns=\"http://www.w3.org/2000/svg\"><text>t</text></svg>")),
            plot(Err("no <room>")),
            Part::Fold("open & see".to_owned(), vec![Part::Printed("level 0 <\n".to_owned())]),
        ];
        Document { title: "Fast & small".to_owned(), parts }
    }

    #[test]
    fn a_page_is_well_formed_and_loads_nothing() {
        let html = document().to_html();
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let page = roxmltree::Document::parse_with_options(&html, options).unwrap();
        let tags: Vec<&str> =
            page.descendants().filter(|node| node.is_element()).map(|n| n.tag_name().name()).collect();
        for absent in ["script", "link", "img", "iframe", "object"] {
            assert!(!tags.contains(&absent), "{absent}");
        }
        assert!(page.descendants().all(|node| node.attribute("src").is_none() && node.attribute("href").is_none()));
        assert!(!html.contains("url(") && !html.contains("@import"));
        let svg = page.descendants().find(|node| node.tag_name().name() == "svg").unwrap();
        assert_eq!(svg.attribute("aria-label"), Some("bars & \"lines\""));
        assert!(html.contains("could not be drawn: no &lt;room&gt;"));
        assert_eq!(tags.iter().filter(|&&tag| tag == "table").count(), 3);
    }

    #[test]
    fn markdown_has_all_but_plots_and_folds() {
        let markdown = document().to_markdown();
        let expected = r"# Fast \& small

## One \| two

\<script\>alert(1)\</script\>

- x
- y \& z

no *like* for like < ever

and more

| engine | kops/s |
| --- | ---: |
| a\<b | 1 |
";
        assert_eq!(markdown, expected);
    }
}
