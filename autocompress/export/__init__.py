"""A candidate as a bundle for deployment: the file, its card, programs that run and check it, C and Android forms."""
