"""Figures for papers, drawn by matplotlib, which is loaded when one is asked for."""
