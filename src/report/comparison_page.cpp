#include "report/comparison_page.hpp"

#include <cmath>
#include <filesystem>

#include "mixtral/core/error.hpp"
#include "report/comparison_charts.hpp"
#include "report/html.hpp"
#include "report/numbers.hpp"

namespace mixtral::report {
namespace {

std::string name_of_path(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  const std::string name = (normal.has_filename() ? normal : normal.parent_path()).filename().string();
  return name.empty() || name == "." ? path : name;
}

std::string share(Index part, Index whole) { return str(percent(part, whole), kPercent); }

std::string experts_text(Index k) { return k == 1 ? "same expert" : str("same ", k, " experts"); }

bool indistinguishable(const ComparisonResult& r) {
  return r.kl.max == 0 && r.gating.n_same_set == r.gating.n && r.gating.n_same_first == r.gating.n &&
         r.n_same_top1 == r.n_targets;
}

// ---- what the figures say --------------------------------------------------------------------------------

std::string routing_said(const ComparisonSetup& setup, const ComparisonResult& r) {
  const GatingStability& g = r.gating;
  std::string out =
      str("<p><strong>Routing.</strong> Of ", thousands(g.n), " routing decisions (one per token and layer) ",
          share(g.n_same_set, g.n), " stay: the token goes to the ", experts_text(setup.n_experts_per_tok), ". In ",
          share(g.n_same_first, g.n), " the first expert, the one with the largest weight, is the same. ");
  if (g.margin_where_differing.n == 0) return out + "No set of experts changes.</p>\n";
  std::size_t least = 0;
  for (std::size_t l = 1; l < r.layers.size(); ++l) {
    if (r.layers[l].same_set() < r.layers[least].same_set()) least = l;
  }
  if (r.layers.size() > 1) {
    out += str("Least stable is layer ", least, " with ", share(r.layers[least].n_same_set, r.layers[least].n), ". ");
  }
  const double differing = g.margin_where_differing.median, same = g.margin_where_same.median;
  if (g.margin_where_same.n == 0) return out + "</p>\n";
  out += differing < same / 4 ? "What changes are near ties of the reference: "
         : differing < same   ? "What changes are not only near ties of the reference: "
                              : "What changes are no near ties of the reference: ";
  return out + str("the median router margin is ", significant(differing), " where the set differs and ",
                   significant(same), " where it stays.</p>\n");
}

std::string prediction_said(const ComparisonResult& r) {
  std::string out = str("<p><strong>Predictions.</strong> At ", share(r.n_same_top1, r.n_targets), " of ",
                        counted(r.n_targets, "position"), " both models hold the same next token for the likeliest. ");
  out += str("The mean KL divergence of ", significant(r.kl.mean),
             " nats means that, on a text drawn from the reference, ", "the model's perplexity would be ",
             significant(100 * std::expm1(r.kl.mean)), kPercent,
             " above the reference's own. At 99 of 100 positions the divergence is at most ", significant(r.kl.p99),
             " nats; the largest is ", significant(r.kl.max), ". ");
  const double reference = std::exp(r.reference_cross_entropy), model = std::exp(r.model_cross_entropy);
  out += str("On the text compared here the perplexity is ", significant(model, 4), ", the reference's ",
             significant(reference, 4), " (", change(std::exp(r.model_cross_entropy - r.reference_cross_entropy)),
             kPercent, ", standard error ", significant(100 * r.difference_error), kPercent, ").");
  if (r.n_targets < 100) out += " With fewer than 100 positions the 99th percentile is the largest value.";
  return out + "</p>\n";
}

std::string said(const ComparisonSetup& setup, const ComparisonResult& r) {
  if (!indistinguishable(r)) {
    return "<div class=\"said\">\n" + routing_said(setup, r) + prediction_said(r) + "</div>\n";
  }
  return str(
      "<div class=\"said\">\n<p><strong>No difference.</strong> On this text the two models cannot be told apart: all ",
      thousands(r.gating.n),
      " routing decisions (one per token and layer) choose the same experts and put the same one first, all ",
      counted(r.n_targets, "position"),
      " have the same likeliest next token, and the KL "
      "divergence is 0 at each of them.</p>\n</div>\n");
}

// ---- tiles -----------------------------------------------------------------------------------------------

std::string tile(const std::string& name, const std::string& value, const std::string& note) {
  return str("<div class=\"tile\"><dt>", name, "</dt><dd class=\"big\">", value, "</dd><dd class=\"note\">", note,
             "</dd></div>\n");
}

std::string tiles(const ComparisonSetup& setup, const ComparisonResult& r) {
  const std::string decisions = str("of ", counted(r.gating.n, "decision"));
  const double ratio = std::exp(r.model_cross_entropy - r.reference_cross_entropy);
  return "<dl class=\"tiles\">\n" +
         tile(str("Same top-", setup.n_experts_per_tok, " set"), share(r.gating.n_same_set, r.gating.n), decisions) +
         tile("Same first expert", share(r.gating.n_same_first, r.gating.n), decisions) +
         tile("Same likeliest token", share(r.n_same_top1, r.n_targets), str("of ", counted(r.n_targets, "position"))) +
         tile("KL, mean", significant(r.kl.mean),
              str("nats, standard error ", significant(r.kl.mean_error), "; median ", significant(r.kl.median))) +
         tile("KL, 99th percentile", significant(r.kl.p99),
              str("nats, 95", kPercent, " interval ", significant(r.kl.p99_low), " to ", significant(r.kl.p99_high),
                  "; largest ", significant(r.kl.max))) +
         tile("Perplexity", significant(std::exp(r.model_cross_entropy), 4),
              str("reference ", significant(std::exp(r.reference_cross_entropy), 4), "; ", change(ratio), kPercent,
                  ", standard error ", significant(100 * r.difference_error), kPercent)) +
         "</dl>\n";
}

// ---- tables ----------------------------------------------------------------------------------------------

std::string layer_row(const std::string& name, const GatingStability& g, const char* style) {
  const auto margin = [](const Distribution& d) {
    return d.n == 0 ? std::string("<td>\u2013</td><td>\u2013</td>")
                    : str("<td>", significant(d.median), "</td><td>", significant(d.mean), "</td>");
  };
  return str("<tr", style, "><th scope=\"row\">", name, "</th><td>", share(g.n_same_set, g.n), "</td><td>",
             share(g.n_same_first, g.n), "</td><td>", thousands(g.n - g.n_same_set), "</td>",
             margin(g.margin_where_differing), margin(g.margin_where_same), "</tr>\n");
}

std::string layer_table(const ComparisonSetup& setup, const ComparisonResult& r) {
  std::string out = str(
      "<div class=\"table\"><table>\n<thead><tr><th rowspan=\"2\" scope=\"col\">Layer</th><th rowspan=\"2\" "
      "scope=\"col\">Same top-",
      setup.n_experts_per_tok,
      " set</th><th rowspan=\"2\" scope=\"col\">Same first expert</th><th rowspan=\"2\" scope=\"col\">Sets that "
      "differ</th><th colspan=\"2\" scope=\"colgroup\">Margin where they differ</th><th colspan=\"2\" "
      "scope=\"colgroup\">Margin where they agree</th></tr>\n<tr><th scope=\"col\">median</th><th scope=\"col\">mean"
      "</th><th scope=\"col\">median</th><th scope=\"col\">mean</th></tr></thead>\n<tbody>\n");
  for (std::size_t l = 0; l < r.layers.size(); ++l) out += layer_row(str(l), r.layers[l], "");
  return out + layer_row("all", r.gating, " class=\"all\"") + "</tbody></table></div>\n";
}

std::string facts_row(const std::string& name, const std::string& model, const std::string& reference) {
  return str("<tr><th scope=\"row\">", name, "</th><td>", escaped(model), "</td><td>", escaped(reference),
             "</td></tr>\n");
}

std::string facts_row(const std::string& name, const std::string& both) {
  return str("<tr><th scope=\"row\">", name, "</th><td colspan=\"2\">", both, "</td></tr>\n");
}

std::string formats_of(const ComparedFiles& files, TensorGroup kind) {
  for (const WeightGroup& group : files.groups) {
    if (group.group == kind) return group.formats;
  }
  return "\u2013";
}

std::string facts_table(const ComparisonSetup& setup, const ComparisonResult& r) {
  std::string out =
      "<div class=\"table\"><table class=\"facts\">\n<thead><tr><th></th><th scope=\"col\">Model</th>"
      "<th scope=\"col\">Reference</th></tr></thead>\n<tbody>\n";
  out += facts_row("Directory", setup.model.path, setup.reference.path);
  const auto bytes = [](Index n) { return str(mebibytes(n), " (", thousands(n), " bytes)"); };
  out += facts_row("Weights", bytes(setup.model.bytes), bytes(setup.reference.bytes));
  for (const WeightGroup& group : setup.reference.groups) {
    out += facts_row(str("\u2003", name_of(group.group)), formats_of(setup.model, group.group), group.formats);
  }
  std::string texts;
  for (const ComparedText& text : setup.texts) {
    texts += str(texts.empty() ? "" : "<br/>", escaped(text.file), ": ", counted(text.n_targets, "position"));
  }
  out += facts_row(setup.texts.size() == 1 ? "Text" : "Texts", texts);
  out += facts_row("Tokens", str(thousands(r.n_inputs), " read by both, ", thousands(r.n_targets),
                                 " predicted, in sequences of at most ", thousands(setup.context)));
  out += facts_row("Router", str(setup.n_experts_per_tok, " of ", setup.n_experts, " experts for each token, in ",
                                 r.layers.size(), r.layers.size() == 1 ? " layer" : " layers"));
  out += facts_row("Run on", str("instruction set ", escaped(setup.isa), ", ", setup.threads,
                                 setup.threads == 1 ? " thread" : " threads"));
  return out + "</tbody></table></div>\n";
}

// "2nd".
std::string ordinal(Index n) {
  const bool teen = n % 100 / 10 == 1;
  return str(n, teen || n % 10 == 0 || n % 10 > 3 ? "th" : n % 10 == 1 ? "st" : n % 10 == 2 ? "nd" : "rd");
}

std::string terms(const ComparisonSetup& setup) {
  const Index k = setup.n_experts_per_tok;
  const auto term = [](const std::string& name, const std::string& text) {
    return str("<dt>", name, "</dt><dd>", text, "</dd>\n");
  };
  return "<dl class=\"terms\">\n" +
         term(str("Same top-", k, " set, same first expert"),
              str("Both models read the same tokens. In each layer, the router of each chooses ", k, " of ",
                  setup.n_experts,
                  " experts for a token. The set is the same if these are the same experts, in any order; "
                  "the first expert is the one with the largest router logit, and so with the largest weight.")) +
         term("Router margin",
              str("On the reference's router logits: the gap between the ", ordinal(k), " and the ", ordinal(k + 1),
                  " largest, that is the last expert that is in and the first that is out. The set can change only if "
                  "these two come closer to each other by at least the margin. Small margins are near ties.")) +
         term("KL divergence",
              "At each position, the sum over all tokens of p (log p \u2212 log q), where p is the reference's "
              "probability of "
              "the token to come next and q the model's: softmax in double precision, natural logarithms (nats). 0 "
              "means the "
              "same distribution.") +
         term("Percentiles",
              "By nearest rank: the 99th is the smallest of the values which at least 99 % of them do not exceed.") +
         term("Same likeliest token",
              "The share of positions where the largest logit is that of the same token; of equal logits the lowest id "
              "counts.") +
         term("Perplexity",
              "The exponential of the mean negative log-likelihood that a model gives to the tokens of the text. Its "
              "change "
              "depends on this text more than the KL divergence does: a worse model can be luckier.") +
         "</dl>\n";
}

}  // namespace

std::string comparison_page(const ComparisonSetup& setup, const Comparison& comparison,
                            const ComparisonResult& result) {
  const std::string title =
      str(escaped(name_of_path(setup.model.path)), " compared with ", escaped(name_of_path(setup.reference.path)));
  std::string body = str("<h1>", title,
                         "</h1>\n<p class=\"sub\">How far a model is from its reference: what it predicts, and which "
                         "experts its router chooses.</p>\n");
  body += said(setup, result) + tiles(setup, result);
  body += "<h2>Pictures</h2>\n<div class=\"figures\">\n" + stability_figure(setup, result) +
          position_figure(comparison.positions()) + margin_figure(comparison, result) +
          kl_figure(comparison.positions(), result) + "</div>\n";
  body += "<h2>Routing per layer</h2>\n" + layer_table(setup, result);
  body += "<h2>What was compared</h2>\n" + facts_table(setup, result);
  body += "<h2>What the figures mean</h2>\n" + terms(setup);
  return page(title, body);
}

}  // namespace mixtral::report
