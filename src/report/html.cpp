#include "report/html.hpp"

#include <algorithm>

#include "mixtral/core/error.hpp"
#include "mixtral/core/utf8.hpp"

namespace mixtral::report {
namespace {

// Of all pages; charts take their colours from it, too.
constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --text: #1b1f24; --soft: #5a6472; --line: #d9dee5;
  --s0: #1f6fbf; --s1: #d2691e; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2127; --text: #e8ebef;
  --soft: #a2acb9; --line: #363d47; --s0: #62a8ee; --s1: #f2a05c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 28px 24px 48px; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .2em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2em 0 .7em; }
.sub { color: var(--soft); margin: 0 0 1.4em; }
.said { font-size: 1.06rem; max-width: 86ch; margin: 0 0 1.5em; }
.said p { margin: 0 0 .6em; }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 12px; margin: 0; padding: 0; }
.tile, figure, .table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile dt { color: var(--soft); font-size: .87rem; }
.tile dd { margin: 0; }
.tile .big { font-size: 1.55rem; font-weight: 650; line-height: 1.3; white-space: nowrap; }
.tile .note { color: var(--soft); font-size: .83rem; line-height: 1.35; }
.figures { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
figure { margin: 0; padding: 14px 16px 10px; display: flex; flex-direction: column; break-inside: avoid; }
figcaption { font-size: .9rem; color: var(--soft); line-height: 1.4; flex: 1; }
figcaption strong { display: block; color: var(--text); font-size: 1.02rem; }
.legend { font-size: .87rem; margin: .6em 0 0; }
.key { margin-right: 1.2em; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 11px; height: 11px; margin-right: 6px; border-radius: 50%; }
.key.s0::before { background: var(--s0); }
.key.s1::before { background: var(--s1); border-radius: 1px; }
svg { display: block; width: 100%; max-width: 560px; height: auto; overflow: visible; margin: .5em auto 0; }
svg text { font-size: 11.5px; fill: var(--soft); }
svg .label { fill: var(--text); }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--soft); }
svg .rule { stroke: var(--text); stroke-dasharray: 4 3; }
svg .s0 { fill: var(--s0); stroke: none; }
svg .s1 { fill: var(--s1); stroke: none; }
svg polyline { fill: none; stroke-width: 2; }
svg .s0 polyline { stroke: var(--s0); }
svg .s1 polyline { stroke: var(--s1); stroke-dasharray: 6 3; }
svg .halo { fill: transparent; }
figure.empty { align-self: start; padding-bottom: 14px; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
thead tr:first-child th:first-child, tbody th { text-align: left; }
td { white-space: nowrap; }
.facts td, .facts th { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts th:first-child { min-width: 8em; overflow-wrap: normal; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 600; font-size: .84rem; line-height: 1.3; }
tbody th { font-weight: 500; }
tr.all > * { font-weight: 650; }
.terms { max-width: 84ch; margin: 0; }
.terms dt { font-weight: 650; margin-top: .8em; }
.terms dd { margin: 0; color: var(--soft); }
@media (max-width: 1080px) { .tiles { grid-template-columns: repeat(3, 1fr); } }
@media (max-width: 820px) { .figures { grid-template-columns: 1fr; } }
@media (max-width: 520px) { body { padding: 18px 12px 32px; font-size: 15px; } figure { padding: 12px 8px 8px; }
  h1 { font-size: 1.35rem; } .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } .tile { padding: 10px; }
  .tile .big { font-size: 1.25rem; } th, td { padding: 6px 8px; } svg text { font-size: 12.5px; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; background: #fff; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } .tile, tr { break-inside: avoid; }
  h2 { break-after: avoid; } .tiles { grid-template-columns: repeat(3, 1fr); }
  .figures { grid-template-columns: 1fr 1fr; gap: 8px; } }
)css";

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const int length = std::max(utf8_char_length(text), 1);
    const std::string_view c = text.substr(0, static_cast<std::size_t>(length));
    const bool readable = is_utf8(c) && (static_cast<unsigned char>(c[0]) >= 0x20 || c[0] == '\t' || c[0] == '\n') &&
                          c != "\x7F" && c != "\xEF\xBF\xBE" && c != "\xEF\xBF\xBF";
    if (c == "&") {
      out += "&amp;";
    } else if (c == "<") {
      out += "&lt;";
    } else if (c == ">") {
      out += "&gt;";
    } else if (c == "\"") {
      out += "&quot;";
    } else if (c == "'") {
      out += "&#39;";
    } else {
      out += readable ? c : kReplacementCharacter;
    }
    text.remove_prefix(c.size());
  }
  return out;
}

std::string page(const std::string& title, const std::string& body) {
  return str(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"/>\n<title>",
      title, "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n", body, "</body>\n</html>\n");
}

}  // namespace mixtral::report
