//! Draws what the benchmarks have found: `docs/figures.md`, a chart, and the README's tables.
//! Started by `benches/report`, with the file that they have written into.

mod sheet;

use std::env;
use std::fmt::Write;
use std::fs;

use sheet::Sheet;

fn main() {
    let path = env::var_os(sheet::SHEETS).expect("benches/report names the file of the figures");
    let sheets = fs::read_to_string(path).expect("the file of the figures");
    let sheets: Vec<Sheet> =
        sheets.lines().map(|line| serde_json::from_str(line).expect("a sheet")).collect();
    fs::write("docs/figures.md", document(&sheets)).expect("docs/figures.md");
    fs::write("docs/figures.svg", chart(&sheets)).expect("docs/figures.svg");
    let readme = fs::read_to_string("README.md").expect("README.md");
    let readme = replace(&readme, "figures", &claims(&sheets));
    let readme = replace(&readme, "dependencies", &dependencies(&sheets));
    fs::write("README.md", readme).expect("README.md");
    let claims = || sheets.iter().flat_map(|sheet| &sheet.claims);
    for claim in claims().filter(|claim| !claim.is_met) {
        println!("not met: {}: {}; goal {}", claim.what, claim.figure, claim.goal);
    }
    println!("{} of {} goals met", claims().filter(|claim| claim.is_met).count(), claims().count());
}

/// Puts it between the two comments of that name.
fn replace(readme: &str, name: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = readme.split_once(&begin).expect("the place for it");
    let (_, after) = rest.split_once(&end).expect("the end of it");
    format!("{before}{begin}\n{text}{end}{after}")
}

fn document(sheets: &[Sheet]) -> String {
    let mut text = format!("# Figures\n\n{INTRODUCTION}\n");
    for sheet in sheets {
        let mut title = sheet.title.clone();
        title[..1].make_ascii_uppercase();
        let _ = write!(text, "\n## {title}\n\n");
        text += &table(&whole(sheet));
        for claim in &sheet.claims {
            let verdict = if claim.is_met { "met" } else { "**not met**" };
            let _ = write!(text, "\nGoal: {}: {verdict}, by {}.\n", claim.goal, claim.figure);
        }
    }
    text
}

fn claims(sheets: &[Sheet]) -> String {
    let mut rows = vec![["", "this crate", "goal", "others, in the same run"].map(str::to_owned)];
    for claim in sheets.iter().flat_map(|sheet| &sheet.claims) {
        let mark = if claim.is_met { "" } else { " (**not met**)" };
        let figure = format!("{}{mark}", claim.figure);
        rows.push([claim.what.clone(), figure, claim.goal.clone(), claim.peer.clone()]);
    }
    table(&rows.into_iter().map(Vec::from).collect::<Vec<_>>())
}

fn dependencies(sheets: &[Sheet]) -> String {
    table(&whole(named(sheets, "dependencies")))
}

fn named<'a>(sheets: &'a [Sheet], begin: &str) -> &'a Sheet {
    let sheet = sheets.iter().find(|sheet| sheet.title.starts_with(begin));
    sheet.unwrap_or_else(|| panic!("no figures of {begin:?}"))
}

/// With the row of the names.
fn whole(sheet: &Sheet) -> Vec<Vec<String>> {
    [std::slice::from_ref(&sheet.columns), &sheet.rows].concat()
}

fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if n == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text
}

/// A group of bars for each of the panels, one bar for each row.
fn chart(sheets: &[Sheet]) -> String {
    let mut bars = String::new();
    let mut y = 24;
    for Panel { of, column, title, unit } in PANELS {
        let sheet = named(sheets, of);
        let place = |name: &str| sheet.columns.iter().position(|column| column == name);
        let column = place(column).unwrap_or_else(|| panic!("no column {column:?}"));
        let value = |row: &[String], place: usize| row[place].parse::<f64>().unwrap_or(0.0);
        // Where some are differences, what they differ from is none of them.
        let is_more = |row: &&Vec<String>| row[column].starts_with('+');
        let any_more = sheet.rows.iter().any(|row| is_more(&row));
        let rows: Vec<_> = sheet.rows.iter().filter(|row| !any_more || is_more(row)).collect();
        let most = rows.iter().map(|row| value(row, column)).fold(f64::MIN_POSITIVE, f64::max);
        let _ = writeln!(bars, r#"<text class="title" x="0" y="{y}">{title}</text>"#);
        y += 10;
        for row in rows {
            let failed = place("failed").map_or(0.0, |place| value(row, place));
            let is_ours = row[0] == "this crate";
            let (class, failed) = match (is_ours, failed > 0.0) {
                (true, _) => ("ours", String::new()),
                (false, true) => ("lost", format!(", {failed} requests failed")),
                (false, false) => ("theirs", String::new()),
            };
            let (figure, middle) = (value(row, column), y + 12);
            let width = figure / most * BAR;
            let (name, name_end, end) = (row[0].trim(), LEFT - 8.0, LEFT + width + 6.0);
            let _ = writeln!(
                bars,
                r#"<text class="name" x="{name_end}" y="{middle}">{name}</text>
<rect class="{class}" x="{LEFT}" y="{y}" width="{width:.1}" height="16" rx="2"/>
<text x="{end:.1}" y="{middle}">{figure} {unit}{failed}</text>"#
            );
            y += 21;
        }
        y += 30;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -4 1060 {y}" font-family="sans-serif" font-size="13">
<style>
text {{ fill: #444 }} .title {{ font-weight: bold; font-size: 14px; fill: #222 }} .name {{ text-anchor: end }}
.ours {{ fill: #2a7d4f }} .theirs {{ fill: #9aa5b1 }} .lost {{ fill: #c0392b }}
</style>
<rect x="-16" y="-4" width="1060" height="{y}" fill="#fff"/>
{bars}</svg>
"##
    )
}

struct Panel {
    /// How the sheet's title begins.
    of: &'static str,
    column: &'static str,
    title: &'static str,
    unit: &'static str,
}

const PANELS: [Panel; 7] = [
    Panel {
        of: "instructions of a request",
        column: "instructions",
        title: "What a request with a fresh token costs more than without a middleware",
        unit: "instructions",
    },
    Panel {
        of: "1,000 requests at once",
        column: "ms",
        title: "1,000 requests at once on a stale token, a refresh takes 50 ms",
        unit: "ms",
    },
    Panel {
        of: "10,000 requests at once",
        column: "ms",
        title: "10,000 requests at once",
        unit: "ms",
    },
    Panel {
        of: "8 programs",
        column: "ms",
        title: "8 programs, 50 requests each, on a stale token",
        unit: "ms",
    },
    Panel {
        of: "the first caller is dropped",
        column: "ms",
        title: "The first caller is dropped in the middle of the refresh, 50 wait",
        unit: "ms",
    },
    Panel {
        of: "a refresh that fails",
        column: "token requests",
        title: "A refresh that fails, 50 wait",
        unit: "× asked for a token",
    },
    Panel {
        of: "20 expiries",
        column: "max",
        title: "20 expiries under steady load: the longest that a caller waits",
        unit: "ms",
    },
];
const LEFT: f64 = 290.0;
const BAR: f64 = 420.0;

const INTRODUCTION: &str = "Measured in one run by `benches/report`. Times are for comparing within \
    a table, and so is the number of 401s, which hangs on them. Instructions differ a little with \
    the compiler. \"In two waves\" is what a program could do that knew what was coming: all its \
    requests are refused, one refresh follows, all are sent again.";
