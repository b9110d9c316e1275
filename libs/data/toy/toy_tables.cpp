// The encyclopaedia of the toy world: countries and chemical elements.
#include "data/toy/toy_facts.h"

namespace nanochat {

// Names without an article, and capitals without doubt.
const std::vector<ToyCountry>& toy_countries() {
  static const std::vector<ToyCountry> countries = {
      {"France", "Paris", "Europe", "French"},          {"Germany", "Berlin", "Europe", "German"},
      {"Italy", "Rome", "Europe", "Italian"},           {"Spain", "Madrid", "Europe", "Spanish"},
      {"Portugal", "Lisbon", "Europe", "Portuguese"},   {"Greece", "Athens", "Europe", "Greek"},
      {"Austria", "Vienna", "Europe", "German"},        {"Hungary", "Budapest", "Europe", "Hungarian"},
      {"Poland", "Warsaw", "Europe", "Polish"},         {"Norway", "Oslo", "Europe", "Norwegian"},
      {"Sweden", "Stockholm", "Europe", "Swedish"},     {"Finland", "Helsinki", "Europe", "Finnish"},
      {"Denmark", "Copenhagen", "Europe", "Danish"},    {"Ireland", "Dublin", "Europe", "English"},
      {"Belgium", "Brussels", "Europe", "Dutch"},       {"Iceland", "Reykjavik", "Europe", "Icelandic"},
      {"Romania", "Bucharest", "Europe", "Romanian"},   {"Bulgaria", "Sofia", "Europe", "Bulgarian"},
      {"Croatia", "Zagreb", "Europe", "Croatian"},      {"Serbia", "Belgrade", "Europe", "Serbian"},
      {"Ukraine", "Kyiv", "Europe", "Ukrainian"},       {"Estonia", "Tallinn", "Europe", "Estonian"},
      {"Latvia", "Riga", "Europe", "Latvian"},          {"Lithuania", "Vilnius", "Europe", "Lithuanian"},
      {"Albania", "Tirana", "Europe", "Albanian"},      {"Russia", "Moscow", "Europe", "Russian"},
      {"Turkey", "Ankara", "Asia", "Turkish"},          {"Egypt", "Cairo", "Africa", "Arabic"},
      {"Morocco", "Rabat", "Africa", "Arabic"},         {"Algeria", "Algiers", "Africa", "Arabic"},
      {"Tunisia", "Tunis", "Africa", "Arabic"},         {"Kenya", "Nairobi", "Africa", "Swahili"},
      {"Ghana", "Accra", "Africa", "English"},          {"Nigeria", "Abuja", "Africa", "English"},
      {"Senegal", "Dakar", "Africa", "French"},         {"Uganda", "Kampala", "Africa", "English"},
      {"Zambia", "Lusaka", "Africa", "English"},        {"Angola", "Luanda", "Africa", "Portuguese"},
      {"Japan", "Tokyo", "Asia", "Japanese"},           {"China", "Beijing", "Asia", "Chinese"},
      {"India", "New Delhi", "Asia", "Hindi"},          {"Thailand", "Bangkok", "Asia", "Thai"},
      {"Vietnam", "Hanoi", "Asia", "Vietnamese"},       {"Indonesia", "Jakarta", "Asia", "Indonesian"},
      {"Nepal", "Kathmandu", "Asia", "Nepali"},         {"Iran", "Tehran", "Asia", "Persian"},
      {"Iraq", "Baghdad", "Asia", "Arabic"},            {"Jordan", "Amman", "Asia", "Arabic"},
      {"Syria", "Damascus", "Asia", "Arabic"},          {"Lebanon", "Beirut", "Asia", "Arabic"},
      {"Canada", "Ottawa", "North America", "English"}, {"Cuba", "Havana", "North America", "Spanish"},
      {"Peru", "Lima", "South America", "Spanish"},     {"Chile", "Santiago", "South America", "Spanish"},
      {"Brazil", "Brasilia", "South America", "Portuguese"}, {"Ecuador", "Quito", "South America", "Spanish"},
      {"Colombia", "Bogota", "South America", "Spanish"},    {"Venezuela", "Caracas", "South America", "Spanish"},
      {"Uruguay", "Montevideo", "South America", "Spanish"}, {"Australia", "Canberra", "Oceania", "English"},
  };
  return countries;
}

const std::vector<ToyElement>& toy_elements() {
  static const std::vector<ToyElement> elements = {
      {"hydrogen", "H", "a light gas", "burns in stars"},
      {"helium", "He", "a light gas", "fills balloons"},
      {"lithium", "Li", "a light metal", "is used in batteries"},
      {"carbon", "C", "a solid", "is found in coal and in every living thing"},
      {"nitrogen", "N", "a gas", "makes up most of the air"},
      {"oxygen", "O", "a gas", "is what animals breathe"},
      {"fluorine", "F", "a pale gas", "is found in toothpaste"},
      {"neon", "Ne", "a gas", "glows in red signs"},
      {"sodium", "Na", "a soft metal", "is a part of salt"},
      {"magnesium", "Mg", "a light metal", "burns with a white flame"},
      {"aluminium", "Al", "a light metal", "is used to build airplanes"},
      {"silicon", "Si", "a hard solid", "is used in computers"},
      {"phosphorus", "P", "a solid", "is found in bones"},
      {"sulfur", "S", "a yellow solid", "smells bad when it burns"},
      {"chlorine", "Cl", "a green gas", "keeps swimming pools clean"},
      {"argon", "Ar", "a gas", "fills light bulbs"},
      {"potassium", "K", "a soft metal", "is found in bananas"},
      {"calcium", "Ca", "a soft metal", "makes bones strong"},
      {"titanium", "Ti", "a strong metal", "is used in rockets"},
      {"chromium", "Cr", "a shiny metal", "makes steel bright"},
      {"manganese", "Mn", "a grey metal", "makes steel hard"},
      {"iron", "Fe", "a strong metal", "is used to make steel"},
      {"cobalt", "Co", "a grey metal", "colours glass blue"},
      {"nickel", "Ni", "a shiny metal", "is used in coins"},
      {"copper", "Cu", "a red metal", "carries electricity in wires"},
      {"zinc", "Zn", "a grey metal", "keeps iron from rusting"},
      {"arsenic", "As", "a grey solid", "is a strong poison"},
      {"bromine", "Br", "a brown liquid", "smells sharp"},
      {"krypton", "Kr", "a gas", "is used in bright lamps"},
      {"silver", "Ag", "a white metal", "is used for spoons and rings"},
      {"tin", "Sn", "a soft metal", "covers cans of food"},
      {"iodine", "I", "a dark solid", "cleans small wounds"},
      {"xenon", "Xe", "a heavy gas", "shines in the lights of cars"},
      {"barium", "Ba", "a soft metal", "makes green fireworks"},
      {"tungsten", "W", "a heavy metal", "does not melt in great heat"},
      {"platinum", "Pt", "a rare metal", "costs a lot of money"},
      {"gold", "Au", "a yellow metal", "is used for crowns and rings"},
      {"mercury", "Hg", "a liquid metal", "was used to measure heat"},
      {"lead", "Pb", "a heavy metal", "is soft and grey"},
      {"uranium", "U", "a heavy metal", "gives power to some ships"},
  };
  return elements;
}

}  // namespace nanochat
